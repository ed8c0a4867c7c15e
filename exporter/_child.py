"""Child processes: the end that starts, asks, limits and ends one, and the end that answers.

They talk in lines of JSON over the child's stdin and stdout. What libraries print goes to stderr, of which the last
line explains a crash. A child ends with its parent, whatever ends that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from rexport._words import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

__all__ = ["Child", "ChildError", "answer_requests", "claim_stdout", "end_with_parent", "keep_on"]

_LOOK_SECONDS = 1.0  # between two looks whether a child is alive
_WATCH_SECONDS = 0.05  # and at its memory


class ChildError(Exception):
    """A failure in a child, in a sentence.

    Attributes:
        kind: The name of the exception raised there; ``Died`` for a crash, ``TimeoutError`` and ``MemoryError`` for a
            child that was ended because it broke a limit.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Child:
    """A process that runs a module; ``rests`` stops it (SIGSTOP) whenever it has nothing to do.

    After its last call a runtime's thread pool goes on spinning for work: with two threads, 40 to 60 ms of CPU time
    over the next 0.1 s for ONNX Runtime and 10 ms for PyTorch, right into the calls of the process whose turn is next;
    stopped at once, 0 to 4 ms. ONNX Runtime's ``session.force_spinning_stop`` ends it as well, but made a small model
    8 % slower (1.67 instead of 1.52 ms) and would measure a session that nobody runs. Without SIGSTOP (Windows) the
    spinning is let be.

    Args:
        module: Run with ``python -m``.
        cores: To stay on; by default, and where the system can't, wherever the system puts it.
        rests: Whether it is stopped in between.
        folder: Its working directory; by default the parent's.
        environment: Its variables; by default the parent's.
    """

    def __init__(
        self,
        module: str,
        *,
        cores: Sequence[int] = (),
        rests: bool = False,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._rests = rests
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            # -P: no module of the current folder stands in for a package's
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=folder,
            env=environment,
            process_group=0,  # so that what it starts ends with it
        )
        if cores:  # while the interpreter starts: threads take over the cores of the one that starts them
            keep_on(self._process.pid, cores)
        self._doing, self._sent = "start", time.monotonic()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # reading in a thread of its own is what can be waited for with a limit on every system
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def __enter__(self) -> Self:
        """Return itself; the process is already starting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def ask(self, do: str, *, limit: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its reply, at most ``limit`` seconds.

        Raises:
            ChildError: The child says so, it died, or it did not answer in time.
        """
        self.send(do, **arguments)
        return self.receive(limit)

    def send(self, do: str, **arguments: Any) -> None:
        """Let the process go on and send it a request."""
        self._doing, self._sent = do, time.monotonic()
        self._signal("SIGCONT")
        self._write(json.dumps({"do": do, **arguments}).encode() + b"\n")

    def send_last(self, data: bytes) -> None:
        """Send bytes of any number, and nothing more, without waiting until they are read."""

        def write() -> None:
            self._write(data)
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()

        threading.Thread(target=write, daemon=True).start()

    def receive(self, limit: float | None = None, *, most_mib: float | None = None) -> dict[str, Any]:
        """Wait for the next reply, and let a process that rests do so.

        Args:
            limit: The most seconds from the request on.
            most_mib: The most memory that the process may hold meanwhile.

        Raises:
            ChildError: The child says so, it died, or it broke a limit, and is ended then.
        """
        line = None
        while line is None:
            wait = _LOOK_SECONDS if most_mib is None else _WATCH_SECONDS
            if limit is not None:
                wait = min(wait, max(0.0, self._sent + limit - time.monotonic()))
            try:
                line = self._lines.get(timeout=wait)
            except queue.Empty:
                self._require_limits(limit, most_mib)
                if self._process.poll() is not None:
                    self._kill()  # a fork may hold the pipe that tells of the end
        if not line.endswith(b"\n"):
            raise ChildError(self._how_it_ended(), kind="Died")
        self._signal("SIGSTOP")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"], kind=reply["kind"])
        return reply

    def close(self) -> None:
        """End the process."""
        self._kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError):  # stdin flushes what a dead child did not read
                if stream is not None:
                    stream.close()

    def _kill(self) -> None:
        """End the process, and those that it forked and that hold its pipes, as OpenVINO's telemetry does."""
        if sys.platform == "win32":
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended before; macOS says EPERM then
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")  # the end

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        # a dead child is noticed, and explained, where its reply is read
        with contextlib.suppress(OSError):
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _require_limits(self, limit: float | None, most_mib: float | None) -> None:
        """End the child if it has broken a limit."""
        if limit is not None and time.monotonic() >= self._sent + limit:
            self._kill()
            raise ChildError(f"It did not answer for {limit:g} s ({self._doing}).", kind="TimeoutError")
        if most_mib is not None and (resident := _resident_mib(self._process.pid)) > most_mib:
            self._kill()
            raise ChildError(f"It took {resident:,.0f} MiB of memory, more than {most_mib:,.0f}.", kind="MemoryError")

    def _signal(self, name: str) -> None:
        if self._rests and hasattr(signal, name) and self._process.poll() is None:
            os.kill(self._process.pid, getattr(signal, name))

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == -9:
            return "Its process was killed (SIGKILL), as happens where memory runs out."
        cause = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        lines = self.errors.strip().splitlines()
        if not lines:
            return f"Its process ended {cause}."
        return f"Its process ended {cause}: {lines[-1].strip()}"


def answer_requests(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> NoReturn:
    """Answer each request of the parent, until it is gone: in the child, instead of a ``main``.

    An exception that ``answer`` raises goes back in a sentence, with the name of its type.
    """
    replies = claim_stdout()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(_claim_stdin(), requests), daemon=True).start()
    while True:
        try:
            reply = answer(json.loads(requests.get()))
        except Exception as error:  # each library raises its own
            reply = {"error": first_line(error), "kind": type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def claim_stdout() -> TextIO:
    """Return a stream to this process's stdout, and send whatever else is written there to stderr.

    It works on the file descriptors, so it also catches what C++ libraries print. The stream is not inherited by child
    processes: whoever reads it sees its end when this process ends.
    """
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream


def end_with_parent() -> None:
    """Ask Linux to kill this process with its parent: it may be stopped then, and not see stdin end."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def keep_on(pid: int, cores: Iterable[int]) -> bool:
    """Keep a process that has one thread as yet on these cores; say whether the system did."""
    try:
        os.sched_setaffinity(pid, cores)
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _claim_stdin() -> TextIO:
    """Return a stream from this process's stdin, and leave an empty one in its place.

    A fork closes ``sys.stdin``, and would wait for ever if a thread of ours was reading it.
    """
    stream = os.fdopen(os.dup(0), encoding="utf-8")
    with Path(os.devnull).open() as empty:
        os.dup2(empty.fileno(), 0)
    return stream


def _read_requests(stream: TextIO, requests: queue.SimpleQueue[str]) -> None:
    for line in stream:
        requests.put(line)
    os._exit(0)  # the parent is gone, maybe killed: no work is of use to anyone


def _resident_mib(pid: int) -> float:
    """Return the memory that a process holds, in MiB; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 2**10  # in KiB there
    return 0.0
