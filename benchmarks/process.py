"""The other end of a worker: starting it, talking to it, and stopping it in between."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from rexport.benchmarks.affinity import keep_on

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["WorkerError", "WorkerProcess"]

_DOING = {
    "import": "starting",
    "prepare": "preparing its input",
    "load": "loading",
    "warm up": "warming up",
    "run": "running",
    "outputs": "computing the outputs that are compared",
    "server": "answering queries",
    "offline": "running",
    "single-stream": "running",
}


class WorkerError(Exception):
    """What went wrong in a worker, in a sentence; ``kind`` is the name of the exception raised there."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerProcess:
    """A process of ``rexport.benchmarks.worker``, stopped (SIGSTOP) whenever it has nothing to do, if it ``rests``.

    After its last call a runtime's thread pool goes on spinning for work: with two threads, 40 to 60 ms of
    CPU time over the next 0.1 s for ONNX Runtime and 10 ms for PyTorch, right into the next row's calls;
    stopped at once, 0 to 4 ms. ONNX Runtime's ``session.force_spinning_stop`` ends it as well, but made a
    small model 8 % slower (1.67 instead of 1.52 ms) and would measure a session that nobody runs. Without
    SIGSTOP (Windows) the spinning is let be.

    Args:
        cores: To stay on (see ``affinity``); by default wherever the system puts it, and where the system can't, too.
        module: What runs in it.
        rests: Whether it is stopped in between.
    """

    def __init__(
        self, *, cores: Sequence[int] = (), module: str = "rexport.benchmarks.worker", rests: bool = True
    ) -> None:
        self._rests = rests
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            # -P: no module of the current folder stands in for a package's
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        if cores:  # while the interpreter starts: threads take over the cores of the one that starts them
            keep_on(self._process.pid, cores)
        self._doing, self._sent = "starting", time.monotonic()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # reading in a thread of its own is what can be waited for with a limit on every system
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Return itself; the process is already starting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def ask(self, do: str, *, limit: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply, at most ``limit`` seconds.

        Raises:
            WorkerError: The worker says so, it died, or it did not answer in time.
        """
        self.send(do, **arguments)
        return self.receive(limit)

    def send(self, do: str, **arguments: Any) -> None:
        """Let the process go on and send it a command."""
        assert self._process.stdin is not None
        self._doing, self._sent = do, time.monotonic()
        self._signal("SIGCONT")
        # a dead worker is noticed, and explained, where its reply is read
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()

    def receive(self, limit: float | None = None) -> dict[str, Any]:
        """Wait for the reply to the last command, at most ``limit`` seconds from its sending, and stop the process.

        Raises:
            WorkerError: The worker says so, it died, or it did not answer in time, and is ended then.
        """
        try:
            left = None if limit is None else max(0.0, self._sent + limit - time.monotonic())
            line = self._lines.get(timeout=left)
        except queue.Empty:
            self._process.kill()
            doing = _DOING.get(self._doing, self._doing)
            raise WorkerError(f"It did not answer for {limit:g} s while {doing}.", kind="TimeoutError") from None
        if not line.endswith("\n"):
            raise WorkerError(self._cause_of_death(), kind="Died")
        self._signal("SIGSTOP")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], kind=reply["kind"])
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError):  # stdin flushes what a dead worker did not read
                if stream is not None:
                    stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end

    def _signal(self, name: str) -> None:
        if self._rests and hasattr(signal, name) and self._process.poll() is None:
            os.kill(self._process.pid, getattr(signal, name))

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code == -9:
            return "Its process was killed (SIGKILL), as happens where memory runs out."
        cause = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"Its process ended {cause}" + (f": {lines[-1].strip()}" if lines else ".")
