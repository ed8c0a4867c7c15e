"""Every kind of fault, a few cases of each, as the command runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rexport.benchmarks.reliability.__main__ import PARTS
from rexport.benchmarks.reliability._part import Part

if TYPE_CHECKING:
    from pathlib import Path

_COMMAND = (sys.executable, "-P", "-m", "rexport.benchmarks.reliability")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_it_holds(name: str, tmp_path: Path) -> None:
    results = tmp_path / "reliability.json"
    command = [*_COMMAND, "--quick", "--only", name, "--json", str(results)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(results.read_text())
    part = document["parts"][name]
    if part["status"] == "not run":
        pytest.skip(part["reason"])
    assert document["schema"] == "rexport.study.reliability/1"
    assert part["status"] == "held"
    assert part["cases"] > 0


def test_a_part_that_does_not_exist() -> None:
    done = subprocess.run([*_COMMAND, "--only", "earthquakes"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no part 'earthquakes'; choose from system-calls")


def test_no_cases_prove_nothing() -> None:
    assert not Part(cases=0, failures=()).held
    assert not Part(cases=2, failures=("one",)).held
    assert Part(cases=2, failures=()).held
