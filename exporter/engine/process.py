"""Running a worker (see :mod:`rexport.engine.worker`) and reporting its progress."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._child import Child, ChildError
from rexport._errors import RexportError, UnavailableError
from rexport.engine.phases import Phases

if TYPE_CHECKING:
    from pathlib import Path

    from rexport._progress import Progress

__all__ = ["run_worker"]

_SCALE = 1000  # of the progress bar, which takes whole steps
_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HOME", "SYSTEMROOT", "TEMP", "PYTHONPATH")


def run_worker(folder: Path, work: str, options: dict[str, Any], progress: Progress, *, doing: str) -> dict[str, Any]:
    """Let a worker do something in ``folder``, and return its result.

    Whatever ends this function, Ctrl-C included, the worker has ended before.

    Args:
        folder: The worker's, with the files it works on.
        work: One of :data:`rexport.engine.worker.WORKS`.
        options: The options of that work.
        progress: Reports its phases.
        doing: The work in words.

    Raises:
        RexportError: The worker reports a failure.
        UnavailableError: It ended in a crash.
    """
    with (
        Child("rexport.engine.worker", folder=folder, environment=_environment()) as child,
        progress(doing, _SCALE) as advance,
    ):
        child.send(work, **options)
        phases, finished = Phases(), 0
        try:
            while "result" not in (message := child.receive()):
                phases.hear(message)
                steps = int(phases.part * _SCALE)
                advance(steps - finished, now=phases.now)
                finished = steps
        except ChildError as error:
            if error.kind == "Died":
                raise UnavailableError(f"TensorRT's compiler crashed; nothing was written. {error}") from error
            raise getattr(_errors, error.kind, RexportError)(str(error)) from error
        result: dict[str, Any] = message["result"]
        return result


def _environment() -> dict[str, str]:
    """Return what a worker needs of the environment: the same few variables, as each moves addresses."""
    return {"PYTHONHASHSEED": "0"} | {name: os.environ[name] for name in _KEPT if name in os.environ}
