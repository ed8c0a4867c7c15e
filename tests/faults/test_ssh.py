"""Roll-outs that are cut: where, and that a device which does not bear it is counted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import ssh
from tests.faults.ssh_device import Cut, Machine, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults._part import Part

linux = pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")

_STEPS = [
    Step("connect"),
    Step("probe", seconds=1.0),
    Step("receive", received=1000, seconds=1.0),
    Step("receive", received=2, seconds=1.0),
    Step("install", seconds=8.0),
]


def test_where_a_roll_out_can_be_cut() -> None:
    found = [(index, where) for index, where, _ in ssh.cuts(_STEPS)]
    times = ("after 50% of the time of",)
    eight = tuple(f"after {n}% of the time of" for n in (6, 19, 31, 44, 56, 69, 81, 94))
    assert found == [
        (0, "at"),
        *((1, where) for where in ("before", *times, "after")),
        *((2, where) for where in ("before", *times, *(f"after {n} of 1000 bytes of" for n in (1, 500, 999)), "after")),
        *((3, where) for where in ("before", *times, "after 1 of 2 bytes of", "after")),
        *((4, where) for where in ("before", *eight, "after")),
    ]
    cuts = [cut for index, _, cut in ssh.cuts(_STEPS) if index == 3]
    assert {(cut.verb, cut.nth) for cut in cuts} == {("receive", 2)}


def test_a_cut_strikes_once_where_it_is_to() -> None:
    cut = Cut("receive", nth=2)
    assert [cut.meets(verb) for verb in ("probe", "receive", "install", "receive", "receive")] == [
        *(False, False, False, True, False),
    ]


def _run(folder: Path) -> Part:
    """Cut twice, and turn up as each of the strangers."""
    pytest.importorskip("asyncssh", reason="pip install 'rexport[deploy]'")
    return ssh.run(folder, every=40, devices=ssh.DEVICES[1:], done=lambda _: None)


@linux
@pytest.mark.slow
def test_a_device_that_loses_files_in_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strike = Machine._strike

    async def damage(self: Machine, connection: Any, cut: Cut) -> None:
        model = self.root / "active" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1])
        await strike(self, connection, cut)

    monkeypatch.setattr(Machine, "_strike", damage)
    part = _run(tmp_path)
    assert (part.cases, len(part.failures)) == (5, 2)
    assert all("model.onnx has" in failure for failure in part.failures)
    assert part.detail["held"]["connect"] == "0 of 1"


@linux
@pytest.mark.slow
def test_cuts_that_do_not_strike_and_strangers_who_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh

    connect = asyncssh.connect
    monkeypatch.setattr(asyncssh, "connect", lambda host, **options: connect(host, **{**options, "known_hosts": None}))
    monkeypatch.setattr(Cut, "meets", lambda self, verb: False)
    part = _run(tmp_path)
    assert part.detail["then"] == {"broken": 4, "refused": 1}
    assert [failure.rsplit(": ", 1)[-1] for failure in part.failures[:2]] == ["the cut did not strike"] * 2
    assert "another host key: the roll-out says installed" in part.failures[2]
    assert "an unknown host key: the roll-out says installed" in part.failures[3]
