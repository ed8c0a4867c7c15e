"""Sweeps of which a sample runs by default: the rest is marked ``deep``.

pytest -m deep                 # all of it
pytest -m deep --deep 3/20     # the third of twenty parts, which together are all of it
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def deep(*cases: object) -> list[Any]:
    """Return what parametrizes a test with ``cases`` that only ``pytest -m deep`` runs; a tuple has several values."""
    return [pytest.param(*case if isinstance(case, tuple) else (case,), marks=pytest.mark.deep) for case in cases]


def chosen(
    items: Iterable[pytest.Item], *, markers: str, part: str | None
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run and those to leave out.

    Args:
        items: Tests, in order.
        markers: What ``-m`` asks for.
        part: What ``--deep`` asks for, as ``K/N``.

    Raises:
        pytest.UsageError: ``part`` is none of N parts.
    """
    number, _, count = (part or "1/1").partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"--deep {part}: a part is K/N, such as 3/20 for the third of twenty")

    def runs(item: pytest.Item) -> bool:
        of_part = zlib.crc32(item.nodeid.encode()) % int(count) == int(number) - 1
        return item.get_closest_marker("deep") is None or ("deep" in markers and of_part)

    given = list(items)
    return [item for item in given if runs(item)], [item for item in given if not runs(item)]
