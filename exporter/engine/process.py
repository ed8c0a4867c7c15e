"""Running a worker (see :mod:`rexport.engine.worker`), and telling of its progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._errors import RexportError, UnavailableError
from rexport.engine.phases import Phases

if TYPE_CHECKING:
    from pathlib import Path

    from rexport._progress import Progress

__all__ = ["run_worker"]

_SCALE = 1000  # of the progress bar, which takes whole steps
_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HOME", "SYSTEMROOT", "TEMP", "PYTHONPATH")


def run_worker(folder: Path, options: dict[str, Any], progress: Progress, *, doing: str) -> dict[str, Any]:
    """Let a worker do something in ``folder``, and return its result.

    Whatever ends this function, Ctrl-C included, the worker has ended before.

    Args:
        folder: The worker's, with what it works on.
        options: What it is to do; ``work`` is one of :data:`rexport.engine.worker.WORKS`.
        progress: Told of its phases.
        doing: That in words.

    Raises:
        RexportError: What it says went wrong.
        UnavailableError: It ended in a crash.
    """
    with ExitStack() as stack:
        log = stack.enter_context((folder / "stderr").open("w+"))
        worker = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "rexport.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=_environment(),
            )
        )
        stack.callback(worker.kill)
        assert worker.stdin is not None
        assert worker.stdout is not None
        json.dump(options, worker.stdin)
        worker.stdin.close()
        advance, phases, shown = stack.enter_context(progress(doing, _SCALE)), Phases(), 0
        for line in worker.stdout:
            said = json.loads(line)
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            if "error" in said:
                raise getattr(_errors, said["kind"], RexportError)(said["error"])
            phases.hear(said)
            reached = int(phases.part * _SCALE)
            advance(reached - shown, now=phases.now)
            shown = reached
        code = worker.wait()
        log.seek(0)
        last = (log.read().strip().splitlines() or ["it said nothing"])[-1]
        raise UnavailableError(f"TensorRT's compiler ended with exit code {code} ({last}); nothing was written.")


def _environment() -> dict[str, str]:
    """Return what a worker needs of the environment: the same few variables, as each moves addresses."""
    return {"PYTHONHASHSEED": "0"} | {name: os.environ[name] for name in _KEPT if name in os.environ}
