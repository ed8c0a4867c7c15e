"""The outcome of a kind of fault: how many cases were tried, which failed, or why it could not be tried."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "ROOT",
    "NotHereError",
    "Part",
    "in_threads",
    "in_workers",
    "require_modules",
    "require_root_on_linux",
    "require_tools",
    "worker_command",
]

ROOT = Path(__file__).parents[2]
"""The checkout, where processes find this package."""

_SHOWN = 20
T = TypeVar("T")
R = TypeVar("R")


class NotHereError(Exception):
    """Why a kind of fault can't be tried on this machine, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What came of one kind of fault.

    Attributes:
        cases: How many faults were tried.
        failures: A sentence for each that ended as it must not.
        detail: Counts of what happened, by name.
    """

    cases: int
    failures: tuple[str, ...]
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether something was tried, and nothing failed."""
        return self.cases > 0 and not self.failures

    def to_json(self, scratch: Path | None = None) -> dict[str, Any]:
        """Return it as a JSON object, the first failures included, without the name of the ``scratch`` folder."""
        shown = [one if scratch is None else one.replace(str(scratch), "SCRATCH") for one in self.failures[:_SHOWN]]
        return {
            "status": "held" if self.held else "failed",
            "cases": self.cases,
            "failures": len(self.failures),
            **self.detail,
            "failed": shown,
        }


def require_root_on_linux() -> None:
    """Raise :class:`NotHereError` where disks can't be mounted."""
    if sys.platform != "linux":
        raise NotHereError("It needs Linux, to mount file systems and to trace system calls.")
    if os.geteuid() != 0:
        raise NotHereError("It needs root, to mount file systems; run it with sudo.")


def require_tools(*names: str) -> None:
    """Raise :class:`NotHereError` for the first program that is missing."""
    for name in names:
        if shutil.which(name) is None:
            raise NotHereError(f"The program {name} is missing; install it with the system's package manager.")


def require_modules(*names: str) -> None:
    """Raise :class:`NotHereError` for the first module that can't be imported; they come with ``rexport[deploy]``."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise NotHereError(f"It needs {name} ({error}); `pip install 'rexport[deploy]'` brings it.") from error


def in_threads(work: Callable[[T], R], cases: Sequence[T], *, done: Callable[[int], None]) -> Iterable[R]:
    """Yield ``work`` of every case, in order, as many at a time as there are cores; each waits for processes."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for result in pool.map(work, cases):
            done(1)
            yield result


def worker_command(module: str, *arguments: str | Path) -> list[str]:
    """Return the command that runs a module of this folder, in :data:`ROOT`."""
    return [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]


def in_workers(commands: Iterable[Sequence[str]], *, done: Callable[[int], None]) -> list[dict[str, Any]]:
    """Run workers at once and return what they say, a JSON object a line."""

    def outcomes_of(command: Sequence[str]) -> list[dict[str, Any]]:
        outcomes = []
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                outcomes.append(json.loads(line))
                done(1)
        return outcomes

    with ThreadPoolExecutor() as pool:
        return list(chain.from_iterable(pool.map(outcomes_of, commands)))
