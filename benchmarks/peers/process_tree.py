"""What a command takes, with all the processes that it starts: wall-clock time, and memory at its peak.

    memory = max over samples of  max(Σ over processes PSS, max over processes VmHWM)        (Linux; /proc)

PSS shares the pages that several processes hold out among them, where the sum of resident sizes would count them as
often. Of a process on its own the kernel keeps the largest resident size (VmHWM), so that no peak between two samples
is lost; and PSS, which takes the kernel a millisecond and more, is read where there are several only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Outcome", "run_tree"]

_INTERVAL = 0.1  # seconds between two samples
_KEPT = 20  # of the last lines that the command wrote to stderr


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended.

    Attributes:
        seconds: Wall-clock, start of the process included.
        peak_memory_mib: Of the whole tree; ``None`` where the system does not tell.
        failure: Why it did not succeed, in a sentence; ``None`` if it did.
    """

    seconds: float
    peak_memory_mib: float | None
    failure: str | None


def run_tree(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None, limit: float = 1800.0
) -> Outcome:
    """Run a command to its end, or until it has taken ``limit`` seconds, and end whatever it left behind.

    Args:
        command: The program and its arguments.
        cwd: The folder to run it in.
        environment: Its environment variables; by default those of this process.
        limit: In seconds.
    """
    log = cwd / ".stderr"
    start = time.perf_counter()
    peak = 0.0
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=errors, stderr=errors, start_new_session=os.name == "posix"
        )
        try:
            while True:
                peak = max(peak, _memory_mib(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_INTERVAL)
                    break
                if time.perf_counter() - start > limit:
                    break
            seconds = time.perf_counter() - start
        finally:
            _end(process)
    failure = None
    if process.returncode and seconds > limit:
        failure = f"It was stopped after {limit:.0f} seconds."
    elif process.returncode:
        failure = _cause(process.returncode, log)
    log.unlink()
    return Outcome(seconds=seconds, peak_memory_mib=peak or None, failure=failure)


def _end(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _cause(code: int, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-_KEPT:]
    # tracebacks end with the exception, which some tools follow with advice
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    if not lines:
        return f"It ended {ended}."
    return f"It ended {ended}: {(errors or lines)[-1]}"


def _memory_mib(root: int) -> float:
    if sys.platform != "linux":
        return 0.0
    pids = list(_tree(root))
    together = sum(_kib(pid, "smaps_rollup", "Pss:") for pid in pids) if len(pids) > 1 else 0.0
    return max(together, *(_kib(pid, "status", "VmHWM:") for pid in pids)) / 2**10


def _tree(root: int) -> Iterator[int]:
    yield root
    with suppress(OSError):
        for task in Path(f"/proc/{root}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from _tree(int(child))


def _kib(pid: int, file: str, field: str) -> float:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return float(line.split()[1])
    return 0.0
