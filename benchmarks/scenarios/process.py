"""The other end of a system under test: starting its process, talking to it, and noticing that it died or hangs."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._errors import RexportError
from rexport.benchmarks.affinity import choose_cores, keep_on, sibling_groups, usable_cores
from rexport.benchmarks.process import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from rexport.benchmarks.scenarios.image import Image
    from rexport.runtimes.source import Source

__all__ = ["SutProcess", "opened", "user_errors"]

_LOADING = 900.0  # seconds: a compiler of graphs may take minutes
_PATIENCE = 120.0  # seconds beyond what a command should take, before it counts as hanging


class SutProcess:
    """A process of ``rexport.benchmarks.scenarios.worker``.

    It measures by itself; only results cross the pipe. Other processes are not stopped meanwhile, so measure
    one at a time.

    Args:
        cores: To stay on (see ``affinity``); by default wherever the system puts it.
    """

    def __init__(self, *, cores: Sequence[int] = ()) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            # -P: no module of the current folder stands in for a package's
            [sys.executable, "-P", "-m", "rexport.benchmarks.scenarios.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        if cores:  # while the interpreter starts: threads take over the cores of the one that starts them
            keep_on(self._process.pid, cores)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()  # a pipe can't be waited for in bounds everywhere

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def __enter__(self) -> SutProcess:
        """Return itself; the process is already starting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def ask(self, do: str, *, should_take: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply, two minutes longer than it should take, in seconds.

        Raises:
            WorkerError: The process says so, or it died, or hangs.
        """
        assert self._process.stdin is not None
        # a dead process is noticed, and explained, where its reply is read
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        limit = should_take + _PATIENCE
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"It hung: no answer to {do!r} within {limit:.0f} s.", kind="Hung") from None
        if not line.endswith("\n"):
            raise WorkerError(self._cause_of_death(), kind="Died")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], kind=reply["kind"])
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._stderr):
            with contextlib.suppress(OSError):  # stdin flushes what a dead process did not read
                if stream is not None:
                    stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put("")

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code == -9:
            return "Its process was killed (SIGKILL), as happens where memory runs out."
        cause = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"Its process ended {cause}" + (f": {lines[-1].strip()}" if lines else ".")


@contextlib.contextmanager
def user_errors(source: Source, runtime: str) -> Iterator[None]:
    """Turn what goes wrong in the process into the error of :mod:`rexport._errors` that it was there."""
    try:
        yield
    except WorkerError as error:
        if error.kind in _errors.__all__:
            raise getattr(_errors, error.kind)(str(error)) from error
        raise RexportError(f"{source} failed on {runtime}: {error}") from error


@contextlib.contextmanager
def opened(source: Source, runtime: str, *, image: Image, threads: int, batch: int, seed: int) -> Iterator[SutProcess]:
    """Yield a process with the model loaded and images ready, and end it after the block."""
    cores = choose_cores(threads, sibling_groups(usable_cores()))
    with user_errors(source, runtime), SutProcess(cores=cores) as process:
        process.ask(
            "load",
            should_take=_LOADING,
            runtime=runtime,
            threads=threads,
            path=source.path and str(source.path),
            network=source.network,
            weights=source.weights and str(source.weights),
            num_classes=source.num_classes,
        )
        stated = None if image.preprocessing is None else image.preprocessing.to_json()
        shape, dtype = image.shape, image.dtype
        process.ask("prepare", should_take=0, shape=shape, dtype=dtype, preprocessing=stated, batch=batch, seed=seed)
        yield process
