"""The workers of a Ray cluster: several machines.

The data must lie at the same paths on all of them, on a shared file system for one, and rexport be installed.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError, UnavailableError
from rexport.calibration.workers.base import memory_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from rexport.calibration.workers.base import ItemT, ResultT, Work

__all__ = ["RayWorkers"]

_SECONDS_TO_ANSWER = 10.0
# In a Ray worker, which serves any number of tasks: the work that it has opened, by the call that it belongs to.
_opened: dict[str, Callable[[Any], Any]] = {}


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """A cluster, which runs as many workers as it has room for, or up to ``count``.

    Attributes:
        threads: Of each worker's runtime; Ray reserves as many CPUs.
        count: How many at a time, at most.
        address: Of the cluster; without one, the cluster of this machine or of ``RAY_ADDRESS``, or else a new one.
        retries: How often an item of a lost worker is done again.
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
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        pending: dict[Any, int] = {}
        waiting = list(reversed(range(len(items))))
        try:
            options = {"max_retries": self.retries, "retry_exceptions": [MemoryError]}  # lost workers always are
            task = ray.remote(num_cpus=self.threads, **options)(_do)
            shared, key, folder = ray.put(work), uuid.uuid4().hex, Path.cwd()
            while waiting or pending:
                while waiting and len(pending) < (self.count or len(items)):
                    index = waiting.pop()
                    pending[task.remote(key, folder, shared, items[index])] = index
                (done, *_), _ = ray.wait(list(pending))
                index = pending.pop(done)
                yield index, _result(ray, done)
        finally:
            for left in pending:
                ray.cancel(left, force=True)
            if ours:
                ray.shutdown()


def _do(key: str, folder: Path, work: Work[Any, Any], item: Any) -> Any:
    with memory_errors():
        if key not in _opened:
            _opened.clear()
            with suppress(OSError):  # a machine without it has what is named by absolute paths
                os.chdir(folder)
            _opened[key] = work.open()
        return _opened[key](item)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UnavailableError("--workers ray needs Ray; type `pip install 'rexport[ray]'`.") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (OSError, ValueError, RuntimeError) as error:
        where = f" at {address}" if address else ""
        raise UnavailableError(
            f"There is no Ray cluster{where} to connect to ({str(error).splitlines()[0]}); see `ray status`."
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
        if not isinstance(error.cause, MemoryError):
            raise error.cause from error
        why = f"out of memory: {error.cause}"
    except ray.exceptions.RayError as error:
        why = str(error).splitlines()[0]
    raise RexportError(
        f"A part of the work was lost on the Ray cluster ({why}); if memory is short, use fewer workers."
    )
