"""Wrong files by the thousand into ``inspect``, ``fuse`` and ``quantize``: each is refused in a sentence, or used.

No death by a signal, no hang, no traceback, nothing opened outside the folder: Python's own opens are watched in every
case, and those of the libraries beneath it with strace in a sample.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.faults._part import ROOT, Part, in_workers, worker_command
from tests.faults.seeds import make_seeds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CASES", "run"]

CASES = 10_000
_TRACED = 400
_FEW = 200  # cases: one worker, and no second run under strace, for starting them would take longest
_OPENED = re.compile(r'open(?:at|at2)?\((?:\S+<([^>]*)>, )?"((?:[^"\\]|\\.)*)", (\S+?)[,)].*\) = \d+<([^>]*)>')


def run(
    folder: Path,
    *,
    cases: int = CASES,
    traced: int = _TRACED,
    done: Callable[[int], None],
    keep: Path | None = None,
) -> Part:
    """Run the cases 0 to ``cases``, on every core, and a sample of them under strace.

    Args:
        folder: An empty folder to work in.
        cases: How many wrong files.
        traced: How many of them under strace, too, where there are enough for that.
        done: Is told how many more are done.
        keep: Where the files of failed cases go.
    """
    (folder / "good").mkdir()
    seeds = make_seeds(folder / "good")
    (folder / "seeds.pickle").write_bytes(pickle.dumps(seeds))
    cores = len(os.sched_getaffinity(0)) if cases > _FEW else 1
    outcomes = in_workers([_command(folder, first, cases, cores, keep) for first in range(cores)], done=done)
    ran, opened, why_not = _trace(folder, min(traced, cases)) if cases > _FEW else (0, [], "too few cases")
    failures = [_sentence(one) for one in sorted(outcomes, key=lambda one: one["case"]) if one["problem"] is not None]
    if len(outcomes) != cases:
        failures.append(f"{cases - len(outcomes)} cases were not run: a worker ended early.")
    return Part(
        cases=len(outcomes),
        failures=(*failures, *opened),
        detail={
            "by_kind": dict(Counter(one["kind"] for one in outcomes)),
            "by_command": dict(Counter(one["command"] for one in outcomes)),
            "by_exit_code": dict(sorted(Counter(str(one["code"]) for one in outcomes).items())),
            "slowest_seconds": max((one["seconds"] for one in outcomes), default=0),
            "traced": ran,
            "not_traced_because": why_not,
        },
    )


def _command(folder: Path, first: int, end: int, step: int, keep: Path | None) -> list[str]:
    kept = [keep] if keep is not None else []
    return worker_command("_mutation_worker", folder, str(first), str(end), str(step), *kept)


def _sentence(one: dict[str, Any]) -> str:
    return f"case {one['case']}, {one['command']} of {one['kind']}: {one['problem']} ({one['said']})"


def _trace(folder: Path, cases: int) -> tuple[int, list[str], str | None]:
    """Run the first cases again under strace; return how many, what was opened that must not be, or why it can't be."""
    if shutil.which("strace") is None:
        return 0, [], "strace is missing"
    log = folder / "opened.log"
    tracer = ["strace", "-f", "-y", "-s", "4096", "-e", "trace=open,openat,openat2", "-o", str(log)]
    command = [*tracer, *_command(folder, 0, cases, 1, None)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        return 0, [], f"strace failed: {ran.stderr.strip().splitlines()[-1:]}"
    opened = [line for line in log.read_text(errors="replace").splitlines() if _leads_outside(line)]
    return ran.stdout.count("\n"), [f"opens what lies outside its folder: {line[:300]}" for line in opened[:50]], None


def _leads_outside(line: str) -> bool:
    """Say whether a line of strace's tells of a successful open of what only a wrong file can have asked for."""
    found = _OPENED.search(line)
    if found is None:
        return False
    real, flags = found[4], found[3]
    if real.endswith("/secret.bin"):
        return "O_WRONLY" not in flags  # the runner itself writes it
    return real in ("/etc/passwd", "/dev/zero") or real.endswith("/mem")
