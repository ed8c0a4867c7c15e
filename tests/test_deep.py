from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests._deep import part_of, runs

_ITEMS: list[Any] = [
    SimpleNamespace(nodeid=f"{kind}-{index}", get_closest_marker=lambda name, kind=kind: name if kind == name else None)
    for kind in ("plain", "deep")
    for index in range(50)
]


def names(markers: str, part: str = "1/1") -> list[str]:
    return [item.nodeid for item in _ITEMS if runs(item, markers=markers, part=part_of(part))]


@pytest.mark.parametrize("markers", ["", "not slow"])
def test_deep_tests_run_only_when_asked_for(markers: str) -> None:
    assert names(markers) == [f"plain-{index}" for index in range(50)]
    assert len(names("deep")) == 100  # of which -m leaves out the plain ones


def test_the_parts_are_all_of_it_and_each_once() -> None:
    parts = [name for number in range(1, 8) for name in names("deep", f"{number}/7") if name.startswith("deep")]
    assert sorted(parts) == sorted(item.nodeid for item in _ITEMS[50:])


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "-1/3", "1/"])
def test_what_is_no_part_is_said(part: str) -> None:
    with pytest.raises(pytest.UsageError, match="third of twenty"):
        part_of(part)
