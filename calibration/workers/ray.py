"""The workers of a Ray cluster: several machines.

The data must lie at the same paths on all of them, on a shared file system for one, and rexport be installed.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections import Counter
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError, UnavailableError
from rexport._words import first_line
from rexport.calibration.workers.base import memory_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from rexport.calibration.workers.base import ItemT, ResultT, Work

__all__ = ["RayWorkers"]

_SECONDS_TO_ANSWER = 10.0
_LOST = "A part of the work was lost on the Ray cluster"
# In a Ray worker, which serves any number of tasks: the work that it has opened, by the call that it belongs to.
_opened: dict[str, Callable[[Any], Any]] = {}


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """A cluster, which runs as many workers as it has room for, or up to ``count``.

    Attributes:
        threads: The threads of each worker's runtime; Ray reserves as many CPUs.
        count: The most workers at a time.
        address: The cluster's address; without one, the cluster of this machine or of ``RAY_ADDRESS``, or else a new
            one.
        retries: How often an item of a lost worker is repeated.
    """

    threads: int
    count: int | None = None
    address: str | None = None
    retries: int = 3

    def map(self, work: Work[ItemT, ResultT], items: Sequence[ItemT]) -> Generator[tuple[int, ResultT], None, None]:
        """See :meth:`Workers.map`.

        Raises:
            UnavailableError: Ray is not installed, or there is no cluster at the address.
        """
        waiting = list(reversed(range(len(items))))
        lacking: Counter[int] = Counter()  # how often there was no memory for an item
        pending: dict[Any, int] = {}
        with _cluster(self.address) as ray:
            task = ray.remote(num_cpus=self.threads, max_retries=self.retries)(_do)
            shared, key, folder = ray.put(work), uuid.uuid4().hex, Path.cwd()
            try:
                while waiting or pending:
                    while waiting and len(pending) < (self.count or len(items)):
                        index = waiting.pop()
                        pending[task.remote(key, folder, shared, items[index])] = index
                    (reference, *_), _ = ray.wait(list(pending))
                    index = pending.pop(reference)
                    try:
                        result = _result(ray, reference)
                    except MemoryError as error:  # Ray would try again too, and print a traceback
                        lacking[index] += 1
                        if lacking[index] > self.retries:
                            raise RexportError(f"{_LOST} ({error}); if memory is short, use fewer workers.") from error
                        waiting.append(index)
                        continue
                    yield index, result
            finally:
                for reference in pending:
                    ray.cancel(reference, force=True)


def _do(key: str, folder: Path, work: Work[Any, Any], item: Any) -> Any:
    with memory_errors():
        if key not in _opened:
            _opened.clear()
            with suppress(OSError):  # a machine without it has what is named by absolute paths
                os.chdir(folder)
            _opened[key] = work.open()
        return _opened[key](item)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Give Ray, connected to a cluster; if it was before, to that one, and it stays so."""
    try:
        import ray
    except ImportError as error:
        raise UnavailableError("--workers ray needs Ray; type `pip install 'rexport[ray]'`.") from error
    if ray.is_initialized():
        yield ray
        return
    with redirect_stdout(sys.stderr):  # stdout is for results, and Ray (2.60) tells of lost workers there
        _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    try:
        _require_answer(address)
        dashboard = {} if address else {"include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **dashboard)
    except (OSError, ValueError, RuntimeError) as error:
        where = f" at {address}" if address else ""
        raise UnavailableError(
            f"There is no Ray cluster{where} to connect to ({first_line(error)}); see `ray status`."
        ) from error


def _require_answer(address: str | None) -> None:
    """Raise :class:`OSError` where nothing listens at an address; Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RexportError(f"{_LOST}: {first_line(error)}") from error
