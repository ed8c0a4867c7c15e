"""Which cores a measured process runs on.

Left alone, the scheduler moves threads between cores, and two of them onto the hardware threads of one core, where they
share its arithmetic units. So a worker is kept on cores that are named: as many physical ones as it has threads, and
their siblings only where there are more threads than cores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["choose_cores", "sibling_groups", "usable_cores"]

_SYSTEM = Path("/sys/devices/system/cpu")


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use, in order; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def sibling_groups(usable: Iterable[int], *, system: Path = _SYSTEM) -> tuple[tuple[int, ...], ...]:
    """Group cores that are hardware threads of one physical core, as ``thread_siblings_list`` says.

    A core about which nothing can be read stands alone.
    """
    groups: dict[frozenset[int], list[int]] = {}
    for core in sorted(usable):
        try:
            text = (system / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
            siblings = frozenset(_numbers(text)) | {core}
        except (OSError, ValueError):
            siblings = frozenset({core})
        groups.setdefault(siblings, []).append(core)
    return tuple(tuple(group) for group in groups.values())


def choose_cores(threads: int, groups: Iterable[Iterable[int]]) -> tuple[int, ...]:
    """Return the cores for so many threads: one of each physical core first, then siblings; all if they are too few.

    Example:
        >>> choose_cores(2, [(0, 4), (1, 5), (2, 6)]), choose_cores(4, [(0, 4), (1, 5), (2, 6)])
        ((0, 1), (0, 1, 2, 4))
    """
    places = [(rank, core) for group in groups for rank, core in enumerate(group)]
    return tuple(sorted(core for _, core in sorted(places)[:threads]))


def _numbers(text: str) -> list[int]:
    """Read a list of cores as Linux writes it: ``0,4`` or ``0-1,8``."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
