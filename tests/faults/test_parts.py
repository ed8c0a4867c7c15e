"""Every kind of fault, a few cases of each, as the command runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests._deep import deep
from tests.faults import (
    concurrency,
    mutations,
    power_cuts,
    self_checks,
    ssh,
    system_calls,
    tampering,
)
from tests.faults.__main__ import PARTS, main
from tests.faults._part import ROOT, NotHereError, Part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MANY: dict[str, Callable[..., Part]] = {
    "system calls of an install": partial(system_calls.run, every=6, only=("install",)),
    "system calls of a rollback": partial(system_calls.run, every=4, only=("rollback",)),
    "power cuts": partial(power_cuts.run, cuts=90),
    "concurrency": partial(concurrency.run, rounds=20),
    "mutations": partial(mutations.run, cases=300, traced=40),
    "self-checks": partial(self_checks.run, repetitions=1),
    "tampering": partial(tampering.run, every=10),
    **{f"ssh to {device}": partial(ssh.run, every=3, devices=(device,)) for device in ssh.DEVICES},
}
"""What takes up to three minutes on one core; of the attacks, the tests of the agent run all."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_few_cases(name: str, tmp_path: Path) -> None:
    results = tmp_path / "reliability.json"
    main(only=name, quick=True, json_file=results)
    document = json.loads(results.read_text())
    part = document["parts"][name]
    if part["status"] == "not run":
        pytest.skip(part["reason"])
    assert document["schema"] == "rexport.study.reliability/1"
    assert part["status"] == "held"
    assert part["cases"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", deep(*_MANY))
def test_many_cases(part: str, tmp_path: Path) -> None:
    """``python -m tests.faults`` runs them all."""
    try:
        found = _MANY[part](tmp_path, done=lambda _: None)
    except NotHereError as why:
        pytest.skip(str(why))
    assert found.failures == ()
    assert found.held


def test_a_part_that_does_not_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--only", "earthquakes"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no part 'earthquakes'; choose from system-calls")


def test_no_cases_prove_nothing() -> None:
    assert not Part(cases=0, failures=()).held
    assert not Part(cases=2, failures=("one",)).held
    assert Part(cases=2, failures=()).held
