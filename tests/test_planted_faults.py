from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.planted_faults import drawn, faults_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a is None", ["x = (a is not None)"]),
        ("x = a + b", ["x = (a - b)"]),
        ("x = a and b", ["x = (a or b)"]),
        ("x = not a", ["x = (a)"]),
        ("x = 3", ["x = (3 + 1)"]),
        ("x = True", ["x = False"]),
        ("f(a)", ["pass"]),
        ("x = f(a, key=b)", ["x = f(a)"]),
        ("x = a if b else c", ["x = a if (not (b)) else c"]),
        ("while a: f()", ["while (not (a)): f()", "while a: pass"]),
        ("def f(a: int) -> int: return a", ["def f(a: int) -> int: return None"]),
        ("x = 'é' + b", ["x = ('é' - b)"]),  # of two bytes
        ("x = f'{a + b}'", []),
        ("if TYPE_CHECKING: from a import b", []),
        ("'''What people read.'''", []),
    ],
)
def test_what_a_line_can_become(line: str, becomes: list[str]) -> None:
    source = f"{line}\n".encode()
    faults = list(faults_of("a.py", source))
    assert [fault.planted_in(source).decode() for fault in faults] == [f"{text}\n" for text in becomes]


def test_the_lines_of_a_fault_are_those_it_is_on() -> None:
    (fault,) = faults_of("a.py", b"\nf(\n    a,\n)\n")
    assert list(fault.lines) == [2, 3, 4]


def test_they_come_from_all_folders_in_proportion_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    for file, lines in {
        "exporter/a.py": 10,
        "exporter/passes/b.py": 80,
        "calibration/c.py": 110,
        "benchmarks/peers/d.py": 9,
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = a + 2\n" * lines)
    faults = drawn(20, seed=1, root=tmp_path)
    assert faults == drawn(20, seed=1, root=tmp_path)
    assert faults != drawn(20, seed=2, root=tmp_path)
    assert len({(fault.file, fault.start, fault.becomes) for fault in faults}) == 20
    assert Counter(fault.file for fault in faults) == {
        "exporter/a.py": 1,
        "exporter/passes/b.py": 8,
        "calibration/c.py": 11,
    }
