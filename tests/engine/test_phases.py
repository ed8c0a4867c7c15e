"""How far a build is, from messages as TensorRT for RTX 1.7 sends them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rexport.engine.phases import Phases


def begins(phase: str, within: str, of: int) -> dict[str, Any]:
    return {"phase": phase, "within": within, "of": of}


def test_phases_share_out_the_step_that_they_are_in() -> None:
    phases = Phases()
    phases.hear(begins("build", "", 4))
    assert (phases.part, phases.now) == (0, "build 0/4")
    phases.hear({"phase": "build", "done": 1})
    phases.hear(begins("time", "build", 2))
    phases.hear({"phase": "time", "done": 1})
    assert (phases.part, phases.now) == (0.25 + 0.25 / 2, "time 1/2")
    phases.hear(begins("reformat", "time", 1))
    assert (phases.part, phases.now) == (0.375, "reformat")
    phases.hear({"phase": "reformat", "ends": True})
    assert (phases.part, phases.now) == (0.5, "time 1/2")
    phases.hear({"phase": "time", "ends": True})
    phases.hear({"phase": "build", "done": 2})
    assert (phases.part, phases.now) == (0.5, "build 2/4")
    phases.hear({"phase": "build", "ends": True})
    assert (phases.part, phases.now) == (1, "")


def test_a_phase_that_comes_twice_within_a_step_takes_nothing_back() -> None:
    phases = Phases()
    for said in (
        begins("build", "", 2),
        begins("a", "build", 1),
        {"phase": "a", "ends": True},
        begins("a", "build", 1),
    ):
        phases.hear(said)
    assert phases.part == 0.5


_NAMES = st.sampled_from(["a", "b", "c"])
_SAID = st.one_of(
    st.builds(begins, _NAMES, st.sampled_from(["", "a", "b", "c"]), st.integers(0, 3)),
    st.builds(lambda name, done: {"phase": name, "done": done}, _NAMES, st.integers(0, 5)),
    st.builds(lambda name: {"phase": name, "ends": True}, _NAMES),
)


@given(st.lists(_SAID, max_size=20))
def test_whatever_is_said_nothing_becomes_less_or_more_than_all(messages: list[dict[str, Any]]) -> None:
    phases, before = Phases(), 0.0
    for said in messages:
        phases.hear(said)
        assert before <= phases.part <= 1
        before = phases.part
