"""Choosing an engine by its name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from rexport._cpu import this_cpu
from rexport._errors import UsageError
from rexport.calibration.engines.local import LocalEngine
from rexport.calibration.engines.processes import ProcessEngine
from rexport.calibration.engines.ray import RayEngine

if TYPE_CHECKING:
    from rexport.calibration.engines.base import Engine

__all__ = ["EngineName", "choose_engine"]


class EngineName(StrEnum):
    """Where the work runs: in this ``LOCAL`` process, in several ``PROCESSES``, or on a ``RAY`` cluster."""

    LOCAL = "local"
    PROCESSES = "processes"
    RAY = "ray"


def choose_engine(
    name: EngineName, *, workers: int | None = None, threads: int | None = None, address: str | None = None
) -> Engine:
    """Return an engine.

    Args:
        name: Which one.
        workers: How many; by default 2 processes, or what a Ray cluster has room for.
        threads: Of each worker's runtime. By default, workers share this machine's cores; on Ray each has one.
        address: Of an existing Ray cluster.

    Raises:
        UsageError: The engine has no such thing as workers, or no address.
    """
    if name is not EngineName.RAY and address is not None:
        raise UsageError(f"--address is that of a Ray cluster, and the engine is {name}; pass --engine ray.")
    if name is EngineName.RAY:
        return RayEngine(threads=threads or 1, workers=workers, address=address)
    cores = this_cpu().cores
    if name is EngineName.PROCESSES:
        workers = workers or 2
        return ProcessEngine(workers=workers, threads=threads or max(1, cores // workers))
    if workers not in (None, 1):
        raise UsageError(f"The engine local is one process, not {workers}; pass --engine processes with --workers.")
    return LocalEngine(threads=threads or cores)
