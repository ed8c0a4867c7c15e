"""Running ``rexport`` and other commands as whole processes, with the time and the memory that they take."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["REXPORT", "Run", "in_turns", "last_line", "rexport", "run"]

REXPORT = (sys.executable, "-P", "-m", "rexport")  # -P: no module of the current folder stands in for a package's


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command took: wall-clock ``seconds``, and its own ``peak_memory_mib`` (children not counted)."""

    seconds: float
    peak_memory_mib: float


def rexport(*arguments: str, cwd: Path) -> Any:
    """Run ``rexport`` with ``--json`` and return its document; notes go to the terminal."""
    finished = subprocess.run([*REXPORT, *arguments, "--json"], cwd=cwd, check=True, stdout=subprocess.PIPE)
    return json.loads(finished.stdout)


def run(command: Sequence[str], *, cwd: Path) -> Run:
    """Run a command that must succeed; POSIX only, for the accounting of finished processes is."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(seconds=time.perf_counter() - start, peak_memory_mib=usage.ru_maxrss / 1024)


def last_line(finished: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a command wrote to stderr, or how it ended if it wrote none."""
    lines = finished.stderr.strip().splitlines() or [f"It ended with exit code {finished.returncode}."]
    return lines[-1]


def in_turns(first: Sequence[str], second: Sequence[str], *, pairs: int, cwd: Path) -> dict[str, Any]:
    """Run two commands in turn, after a warm-up of each, and return their times and the ratio first / second.

    The ratio is the median of those of the pairs, which a drift of the machine hits alike.
    """
    for command in (first, second):
        run(command, cwd=cwd)
    taken = [(run(first, cwd=cwd).seconds, run(second, cwd=cwd).seconds) for _ in range(pairs)]
    ratios = [a / b for a, b in taken]
    return {
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "first_seconds": [a for a, _ in taken],
        "second_seconds": [b for _, b in taken],
    }
