"""How many cores this process can keep busy: those that it may run on, and no more than its container's CPU quota.

A quota bounds the time on all cores together: threads beyond it do not share it, they are stopped until the next period
begins. It is that of the process's control group or of one above it, whichever is smallest (Linux's documentation:
admin-guide/cgroup-v2, ``cpu.max``; scheduler/sched-bwc, ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``).
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Iterator

__all__ = ["cpu_quota", "throttling_quota", "usable_cores"]

_MOUNTS = {"": ("", "unified"), "cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu")}  # below /sys/fs/cgroup
_QUOTA = re.compile(r"([1-9]\d*) ([1-9]\d*)")


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many threads this process can keep busy, 1 at least."""
    quota = throttling_quota(root)
    return _affinity() if quota is None else max(1, math.ceil(quota))


def throttling_quota(root: Path = Path("/")) -> float | None:
    """Return :func:`cpu_quota` where it is below the cores that this process may run on, else ``None``."""
    quota = cpu_quota(root)
    return quota if quota is not None and quota < _affinity() else None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota that holds for this process, in cores; ``None`` without one.

    Args:
        root: The folder that ``proc`` and ``sys`` lie in.
    """
    return min((quota for group in _groups(root) for quota in _quotas_of(group)), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of those above them, of both versions.

    In a container the groups may be named as the host sees them, below which nothing is mounted; the folder of the
    mount is then the container's own.
    """
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, _, entry = line.partition(":")
        controllers, _, name = entry.partition(":")
        mounts = [mount for controller in controllers.split(",") for mount in _MOUNTS.get(controller, ())]
        for mount in mounts:
            folder = root / "sys" / "fs" / "cgroup" / mount
            yield folder
            for part in name.strip("/").split("/"):
                if part in ("", ".", ".."):  # of a group outside of the container's
                    break
                folder /= part
                yield folder


def _quotas_of(group: Path) -> Iterator[float]:
    """Yield the quota that a group's files state; ``max 100000`` and ``-1`` are none."""
    old = " ".join(_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    for text in (_text(group / "cpu.max"), old):
        match = _QUOTA.fullmatch(text.strip())
        if match is not None:
            yield int(match.group(1)) / int(match.group(2))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
