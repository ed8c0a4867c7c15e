"""Choosing workers by the text that a user types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rexport._cpu import this_cpu
from rexport._errors import UsageError
from rexport.calibration.workers.local import LocalWorkers
from rexport.calibration.workers.processes import ProcessWorkers
from rexport.calibration.workers.ray import RayWorkers

if TYPE_CHECKING:
    from rexport.calibration.workers.base import Workers

__all__ = ["choose_workers"]

_RAY = re.compile(r"ray(:(?P<address>[^,]+))?(,(?P<count>[1-9]\d*))?")


def choose_workers(text: str = "local", *, threads: int | None = None) -> Workers:
    """Return the workers that ``--workers`` names.

    Args:
        text: ``local``, this process; ``4``, so many processes; ``ray``, the Ray cluster of ``RAY_ADDRESS`` or of this
            machine, or else a new one; ``ray:auto``, ``ray:HOST:PORT`` or ``ray://HOST:PORT``, an existing cluster. On
            Ray there are as many workers as there is room for, or up to N with ``,N`` at the end.
        threads: Those of each worker's runtime. By default, workers share this machine's cores; on Ray each has one.

    Raises:
        UsageError: It is none of these.
    """
    cores = this_cpu().cores
    if text == "local":
        return LocalWorkers(threads=threads or cores)
    if re.fullmatch(r"[1-9]\d*", text):
        return ProcessWorkers(count=int(text), threads=threads or max(1, cores // int(text)))
    ray = _RAY.fullmatch(text)
    if ray is None:
        raise UsageError(
            f"--workers {text}: choose local, a number of processes such as 4, or ray, with an address or the most "
            "workers such as ray:auto, ray://HOST:PORT or ray,8."
        )
    address, count = ray["address"], ray["count"]
    if address and address.startswith("//"):
        address = f"ray:{address}"
    return RayWorkers(threads=threads or 1, count=int(count) if count else None, address=address)
