"""Running the worker: a process with bounds on its memory and time, which may crash or hang without harm.

It is this very agent, started anew with the verb ``_worker``; it reads one JSON object from stdin and prints its
answers, one a line.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from typing import IO, Any, Generator, Iterator, NamedTuple

__all__ = ["Bounds", "WorkerError", "answers_of_worker", "ask_worker", "own_archive"]

_SAID = 600  # characters of what a worker that failed said last
_TO_END = 10.0  # seconds from a worker's last word to the end of its process
_CHUNK = 1 << 16


class Bounds(NamedTuple):
    """What a worker may take.

    Attributes:
        seconds: For each of its answers, by the clock; on all its cores together, as many times that as there are.
        memory_mib: That it may allocate.
        data_limit: Whether that is enforced; CUDA reserves more address space than there is memory.
    """

    seconds: float
    memory_mib: int
    data_limit: bool = True


class WorkerError(Exception):
    """The worker failed; the message is the reason, without a full stop."""


def ask_worker(question: dict[str, Any], limits: Bounds) -> dict[str, Any]:
    """Return the worker's only answer.

    Raises:
        WorkerError: It says why it has none, crashed, or took too long.
    """
    with closing(answers_of_worker(question, limits, 1)) as answers:
        return next(answers)


def answers_of_worker(question: dict[str, Any], limits: Bounds, count: int) -> Generator[dict[str, Any], None, None]:
    """Yield the worker's answers as they come; closing the iterator ends it.

    Args:
        question: What it is asked.
        limits: What it may take.
        count: How many answers there will be.

    Raises:
        WorkerError: It says why it has none, crashed, or took too long for one.
    """
    text = json.dumps({**question, "limits": limits._asdict(), "answers": count})
    folder = tempfile.TemporaryDirectory(prefix="rexport-")
    with folder, tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as errors:
        questions.write(text.encode())
        questions.seek(0)
        process = subprocess.Popen(
            _command(),
            stdin=questions,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder.name,
            start_new_session=True,
        )
        try:
            lines = _lines(process, limits.seconds)
            for _ in range(count):
                yield _document(next(lines, b""), process, errors)
        finally:
            _kill(process)


def _lines(process: subprocess.Popen[bytes], patience: float) -> Iterator[bytes]:
    """Yield the lines that a process prints, each within ``patience`` seconds of when it is waited for."""
    assert process.stdout is not None
    descriptor, buffer = process.stdout.fileno(), b""
    arrivals = select.poll()
    arrivals.register(descriptor, select.POLLIN)
    while True:
        deadline = time.monotonic() + patience
        while b"\n" not in buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not arrivals.poll(remaining * 1e3):
                raise WorkerError(f"it was not done after {patience:g} s")
            part = os.read(descriptor, _CHUNK)
            if not part:
                return
            buffer += part
        line, _, buffer = buffer.partition(b"\n")
        yield line


def _document(line: bytes, process: subprocess.Popen[bytes], errors: IO[bytes]) -> dict[str, Any]:
    try:
        document = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise WorkerError(_how_it_ended(process, errors)) from error
    if not isinstance(document, dict):
        raise WorkerError("it answered nonsense")
    if "error" in document:
        raise WorkerError(str(document["error"]).rstrip("."))
    return document


def _how_it_ended(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TO_END)
    code = process.poll()
    if code is not None and code < 0:
        return f"it crashed with {_signal_name(-code)}"
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * _SAID))
    last_words = " ".join(errors.read().decode("utf-8", "replace").split())[-_SAID:]
    return f"it ended with exit code {code}, saying: {last_words or 'nothing'}"


def own_archive() -> str | None:
    """Return the path of the ``.pyz`` file that this is a part of, ``None`` where it is installed as a package."""
    archive = getattr(sys.modules[__name__].__loader__, "archive", None)  # of zipimport
    return archive and os.path.abspath(archive)  # noqa: PTH100 - resolve() would follow links


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
    if process.stdout is not None:
        process.stdout.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
