"""Every byte of a signed bundle changed, and every truncation: all refused, before a parser or a runtime sees them.

The agent runs in a process whose JSON parser and started programs are watched: it may parse the manifest as it was
signed and its own state, and start ``openssl``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.faults._part import Part, in_workers, require_tools, worker_command
from tests.faults.agent import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["run"]


def run(folder: Path, *, every: int = 1, done: Callable[[int], None]) -> Part:
    """Try all bytes and lengths, or every so many of them."""
    require_tools("openssl")
    workshop = Workshop.set_up(folder / "workshop")
    first, bundle = workshop.bundle(1), workshop.bundle(2)
    size, cores = bundle.stat().st_size, len(os.sched_getaffinity(0))
    commands = []
    for core in range(cores):
        root = workshop.root(first, name=f"root{core}")
        cases = (str(core * every), str(2 * size), str(cores * every))
        commands.append(worker_command("_tampering_worker", root, bundle, *cases))
    outcomes = in_workers(commands, done=done)
    expected = len(range(0, 2 * size, every))
    failures = [f"{_in_words(one['case'], size)}: {one['problem']}" for one in outcomes if one["problem"] is not None]
    if len(outcomes) != expected:
        failures.append(f"{expected - len(outcomes)} cases were not run: a worker ended early.")
    flipped = sum(one["case"] < size for one in outcomes)
    return Part(
        cases=len(outcomes),
        failures=tuple(failures),
        detail={"bundle_bytes": size, "bytes_changed": flipped, "truncations": len(outcomes) - flipped},
    )


def _in_words(case: int, size: int) -> str:
    return f"byte {case} changed" if case < size else f"cut off after {case - size} bytes"
