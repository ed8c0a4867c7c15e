"""Sweeps of which a sample runs by default: the rest is marked ``deep``.

pytest -m deep                 # all of it
pytest -m deep --deep 3/20     # the third of twenty parts, which together are all of it
"""

from __future__ import annotations

import zlib
from typing import Any

import pytest


def deep(*cases: object) -> list[Any]:
    """Return what parametrizes a test with ``cases`` that only ``pytest -m deep`` runs; a tuple has several values."""
    return [pytest.param(*case if isinstance(case, tuple) else (case,), marks=pytest.mark.deep) for case in cases]


def part_of(text: str) -> tuple[int, int]:
    """Return the numbers of ``K/N``.

    Raises:
        pytest.UsageError: It is none of N parts.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"--deep {text}: a part is K/N, such as 3/20 for the third of twenty")
    return int(number), int(count)


def runs(item: pytest.Item, *, markers: str, part: tuple[int, int]) -> bool:
    """Return whether a test runs with these ``markers`` of ``-m`` and this part of ``--deep``."""
    number, count = part
    of_part = zlib.crc32(item.nodeid.encode()) % count == number - 1
    return item.get_closest_marker("deep") is None or ("deep" in markers and of_part)
