"""Every byte of a signed bundle changed, and every truncation: all refused, before a parser or a runtime sees them.

The agent runs in a process whose JSON parser and started programs are watched: it may parse the manifest as it was
signed and its own state, and start ``openssl``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.reliability._part import Part, require_tools
from rexport.benchmarks.reliability.agent import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["run"]

_WORKER = (sys.executable, "-P", "-m", "rexport.benchmarks.reliability._tampering_worker")


def run(folder: Path, *, every: int = 1, done: Callable[[int], None]) -> Part:
    """Try all bytes and lengths, or every so many of them."""
    require_tools("openssl")
    workshop = Workshop.set_up(folder / "workshop")
    first, bundle = workshop.bundle(1), workshop.bundle(2)
    size, cores = bundle.stat().st_size, len(os.sched_getaffinity(0))
    outcomes: list[dict[str, Any]] = []
    threads = []
    for core in range(cores):
        root = workshop.root(first, name=f"root{core}")
        command = [*_WORKER, str(root), str(bundle), str(core * every), str(2 * size), str(cores * every)]
        threads.append(Thread(target=_follow, args=(command, outcomes, done)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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


def _follow(command: list[str], outcomes: list[dict[str, Any]], done: Callable[[int], None]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            outcomes.append(json.loads(line))
            done(1)


def _in_words(case: int, size: int) -> str:
    return f"byte {case} changed" if case < size else f"cut off after {case - size} bytes"
