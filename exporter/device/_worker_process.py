"""Running the worker: a process with bounds on its memory and time, which may crash or hang without harm.

It is this very agent, started anew with the verb ``_worker``; it reads one JSON object from stdin and prints one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

__all__ = ["Bounds", "WorkerError", "ask_worker", "own_archive"]

_SAID = 600  # characters of what a worker that failed said last


class Bounds(NamedTuple):
    """What a worker may take.

    Attributes:
        seconds: By the clock; on all its cores together, as many times that as there are.
        memory_mib: That it may allocate.
        data_limit: Whether that is enforced; CUDA reserves more address space than there is memory.
    """

    seconds: float
    memory_mib: int
    data_limit: bool = True


class WorkerError(Exception):
    """The worker failed; the message is the reason, without a full stop."""


def ask_worker(question: dict[str, Any], limits: Bounds) -> dict[str, Any]:
    """Return the worker's answer.

    Raises:
        WorkerError: It says why it has none, crashed, or took too long.
    """
    question = {**question, "limits": limits._asdict()}
    with tempfile.TemporaryDirectory(prefix="rexport-") as folder, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate(json.dumps(question).encode(), timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            raise WorkerError(f"it was not done after {limits.seconds:g} s") from error
        finally:
            _kill(process)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * _SAID))
        said = " ".join(errors.read().decode("utf-8", "replace").split())[-_SAID:]
    if process.returncode < 0:
        raise WorkerError(f"it crashed with {_signal_name(-process.returncode)}")
    try:
        document = json.loads(answer.decode("utf-8"))
    except ValueError as error:
        raise WorkerError(f"it ended with exit code {process.returncode}, saying: {said or 'nothing'}") from error
    if not isinstance(document, dict) or "error" in document:
        raise WorkerError(str(document["error"]).rstrip(".") if isinstance(document, dict) else "it answered nonsense")
    return document


def own_archive() -> str | None:
    """Return the path of the ``.pyz`` file that this is a part of, ``None`` where it is installed as a package."""
    archive = getattr(sys.modules[__name__].__loader__, "archive", None)  # of zipimport
    return None if archive is None else os.path.abspath(archive)  # noqa: PTH100 - resolve() would follow links


def _command() -> list[str]:
    archive = own_archive()
    return [sys.executable, *(["-m", str(__package__)] if archive is None else [archive]), "_worker"]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the worker and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
