"""Several processes of this machine."""

from __future__ import annotations

import pickle
import signal
import sys
import traceback
from collections import Counter, deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError
from rexport.calibration.workers.base import memory_errors

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from rexport.calibration.workers.base import ItemT, ResultT, Work

__all__ = ["ProcessWorkers"]

# Not forked: a runtime's threads and locks do not survive that.
_CONTEXT = get_context("spawn")


@dataclass(frozen=True, kw_only=True)
class ProcessWorkers:
    """``count`` processes, each with a runtime of ``threads``.

    A worker that is lost (killed when memory runs out, say) is replaced, and its item repeated up to ``retries``
    times.
    """

    count: int
    threads: int
    retries: int = 2

    def map(self, work: Work[ItemT, ResultT], items: Sequence[ItemT]) -> Generator[tuple[int, ResultT], None, None]:
        """See :meth:`Workers.map`."""
        waiting = deque(range(len(items)))
        lost: Counter[int] = Counter()
        workers: list[_Worker] = []
        try:
            while waiting or workers:
                while waiting and len(workers) < self.count:
                    workers.append(_Worker(work))
                    workers[-1].give(waiting.popleft(), items)
                for worker in _ready(workers):
                    try:
                        result = worker.take()
                    except _LostError as error:
                        worker.stop()
                        workers.remove(worker)
                        waiting.appendleft(worker.index)
                        lost[worker.index] += 1
                        if lost[worker.index] > self.retries:
                            raise _gave_up(worker.index, lost[worker.index], error) from None
                        continue
                    yield worker.index, result
                    if waiting:
                        worker.give(waiting.popleft(), items)
                    else:
                        worker.stop()
                        workers.remove(worker)
        finally:
            for worker in workers:
                worker.stop()


class _LostError(Exception):
    """A worker has ended, or has no memory left."""


def _gave_up(index: int, times: int, error: _LostError) -> RexportError:
    return RexportError(
        f"Worker processes ended {times} times over part {index + 1} of the work ({error}); if memory is short, try "
        "again with fewer --workers."
    )


class _Worker:
    """A process, and the item that it works on."""

    index: int

    def __init__(self, work: Work[Any, Any]) -> None:
        self.connection, remote = _CONTEXT.Pipe()
        self._process: SpawnProcess = _CONTEXT.Process(target=_serve, args=(remote, work), daemon=True)
        with _without_ctrl_c():
            self._process.start()
        remote.close()

    def give(self, index: int, items: Sequence[Any]) -> None:
        """Send an item; if the process has ended, :meth:`take` raises."""
        self.index = index
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(items[index])

    def take(self) -> Any:
        """Return the result, or raise what the work raised, or :class:`_LostError`."""
        try:
            result, error = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise _LostError(f"exit code {self.stop()}") from None
        if isinstance(error, MemoryError):
            raise _LostError("out of memory")
        if error is not None:
            raise error
        return result

    def stop(self) -> int | None:
        """End the process and return its exit code."""
        self.connection.close()
        self._process.join(timeout=0.2 if self._process.exitcode is None else 0)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even as they import: it ends their parent, and that ends them."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # which would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    # the end of a process makes its connection ready too
    ready = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def _serve(connection: Connection, work: Work[Any, Any]) -> None:
    """Do one item after the other until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # it has closed
        while True:
            item, result, error = connection.recv(), None, None
            try:
                with memory_errors():
                    function = function or work.open()
                    result = function(item)
            except Exception as raised:
                error = _as_sent(raised)
            connection.send((result, error))


def _as_sent(error: Exception) -> Exception:
    """Return an error with its traceback as a note; or that alone, where the error can't be pickled."""
    trace = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{trace}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return RuntimeError(trace)
    return error
