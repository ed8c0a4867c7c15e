"""Power cuts at random moments of an install, on a recorded disk; and the same without fsync, which must fail.

After each cut the disk is mounted, which replays its journal, and looked at: the old version or the new one must be
active, and whole; the new one if the install had reported success. Then the agent has to find its way.

The control is the same agent with ``os.fsync`` doing nothing but for the root's own folder, which makes the switch
durable and not what it switches to. If an experiment can't break that, it proves nothing about the agent.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.faults._part import NotHereError, Part, in_threads, require_root_on_linux, require_tools
from tests.faults.agent import Agent, Workshop, complaint, fault_in
from tests.faults.recorded_disk import RecordedDisk, mounted_image, recorded_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CUTS", "run"]

CUTS = 600
_CUTS_PER_INSTALL = 60
_SETTLE = 2.0  # times an install's own duration, after its end
_RETRIED = 4  # every so many cuts, the install is tried again
_WITHOUT_FSYNC = """
import os, runpy, sys
real, root = os.fsync, os.path.realpath(sys.argv[sys.argv.index("--root") + 1])
def fsync(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}") == root:
        real(descriptor)
os.fsync = os.fdatasync = fsync
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True)
class _Recording:
    """One install: when it began, when it reported success, and until when the disk was watched."""

    disk: RecordedDisk
    begin: float
    success: float
    end: float


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A power cut after ``kept`` events; ``durable`` if the install had reported success by then."""

    recording: _Recording
    kept: int
    durable: bool
    number: int

    def content(self) -> bytearray:
        """Return the disk; in two cuts of three, what was not flushed is lost in part or in whole."""
        random = Random(self.number)
        return self.recording.disk.after_power_cut(self.kept, random if self.number % 3 else None)


def run(folder: Path, *, cuts: int = CUTS, done: Callable[[int], None]) -> Part:
    """Cut the power ``cuts`` times for the agent, and half as many times, 8 at least, for the control.

    Raises:
        NotHereError: No disks can be mounted here.
    """
    require_root_on_linux()
    require_tools("mount", "umount", "mkfs.ext4")
    workshop = Workshop.set_up(folder / "workshop")
    bundles = [workshop.bundle(version) for version in (1, 2)]
    control = Agent((workshop.agent.command[0], "-B", "-c", _WITHOUT_FSYNC, workshop.agent.command[-1]))
    failures, counts = _experiment(folder, workshop, workshop.agent, bundles, cuts, done)
    broken, of_control = _experiment(folder, workshop, control, bundles, max(cuts // 2, min(cuts, 8)), done)
    share = len(broken) / max(1, sum(of_control["outcomes"].values()))
    if share <= 0.5:
        failures.append(f"The control without fsync fails in {share:.0%} only, so that the experiment proves little.")
    return Part(
        cases=sum(counts["outcomes"].values()),
        failures=tuple(failures),
        detail={
            "outcomes": dict(counts["outcomes"]),
            "moments": dict(counts["moments"]),
            "installs": counts["installs"]["recorded"],
            "retried": counts["installs"]["retried"],
            "control": {
                "cases": sum(of_control["outcomes"].values()),
                "failures": len(broken),
                "moments": dict(of_control["moments"]),
                "such_as": broken[:3],
            },
        },
    )


def _experiment(
    folder: Path, workshop: Workshop, agent: Agent, bundles: list[Path], cuts: int, done: Callable[[int], None]
) -> tuple[list[str], dict[str, Counter[str]]]:
    """Return a sentence for each cut that left what must not be, and counts of the others."""
    failures: list[str] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("outcomes", "moments", "installs")}
    is_control = agent is not workshop.agent

    def examine(cut: _Cut) -> tuple[_Cut, str, str | None]:
        return cut, *_examine(folder, workshop, bundles[1], cut, look_only=is_control)

    for first in range(0, cuts, _CUTS_PER_INSTALL):
        recording = _record(folder, workshop, agent, bundles)
        counts["installs"]["recorded"] += 1
        these = list(_cuts(recording, first, min(cuts, first + _CUTS_PER_INSTALL), only_in_time=is_control))
        for cut, outcome, fault in in_threads(examine, these, done=done):
            moment = "after the install reported success" if cut.durable else "during the install"
            counts["outcomes"]["broken" if fault else outcome] += 1
            counts["moments"][f"{moment}, {'broken' if fault else 'whole'}"] += 1
            counts["installs"]["retried"] += not is_control and cut.number % _RETRIED == 0
            if fault is not None:
                failures.append(f"power cut {cut.number}, {moment}, after {cut.kept} events: {fault}")
    return failures, counts


def _record(folder: Path, workshop: Workshop, agent: Agent, bundles: list[Path]) -> _Recording:
    with tempfile.TemporaryDirectory(dir=folder) as name, recorded_disk(Path(name)) as (disk, mount_point):
        root = mount_point / "rexport"
        workshop.furnish(root, bundles[0])
        _flush(mount_point)
        disk.record()
        begin = time.monotonic()
        installed = agent.run("install", bundles[1], root=root)
        success = time.monotonic()
        if installed.code:
            raise NotHereError(f"The install fails without a power cut: {installed.stderr or installed.stdout}")
        time.sleep(_SETTLE * (success - begin))
        end = time.monotonic()
        events = list(disk.events)
    # what unmounting wrote comes too late to count
    return _Recording(disk=RecordedDisk(bytearray(), events, disk.before), begin=begin, success=success, end=end)


def _flush(mount_point: Path) -> None:
    import os

    descriptor = os.open(mount_point, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.sync()
    finally:
        os.close(descriptor)


def _cuts(recording: _Recording, first: int, end: int, *, only_in_time: bool) -> Iterator[_Cut]:
    """Yield cuts at random: every other, or each, at a moment in time, the rest between writes, where states are many.

    Each lies at random within a share of its own of the whole, so that a few cuts see all of it.
    """
    random = Random(first)
    times = [event.at for event in recording.disk.events]
    for number in range(first, end):
        share = (number - first + random.random()) / (end - first)
        if number % 2 or only_in_time:
            moment = recording.begin + share * (recording.end - recording.begin)
            kept = sum(at <= moment for at in times)
        else:
            kept = int(share * (len(times) + 1))
            moment = times[kept - 1] if kept else recording.begin
        yield _Cut(recording=recording, kept=kept, durable=moment > recording.success, number=number)


def _examine(folder: Path, workshop: Workshop, bundle: Path, cut: _Cut, *, look_only: bool) -> tuple[str, str | None]:
    """Return which version is active after a cut, and what is wrong, if anything is."""
    with mounted_image(cut.content(), folder) as mount_point:
        root = mount_point / "rexport"
        allowed = (2,) if cut.durable else (1, 2)
        fault = fault_in(root, allowed=allowed)
        if look_only or fault is not None:
            return "", fault
        status = workshop.agent.run("status", root=root)
        fault = complaint(status) or (f"status says {status.stderr.strip()}" if status.code else None)
        fault = fault or fault_in(root, allowed=allowed)
        if fault is not None:
            return "", f"after the agent looked at it: {fault}"
        outcome = "new version" if fault_in(root, allowed=(2,)) is None else "old version"
        if cut.number % _RETRIED == 0:
            again = workshop.agent.run("install", bundle, root=root)
            fault = complaint(again) or fault_in(root, allowed=(2,))
            if fault is not None or again.code:
                return outcome, f"the install can't be tried again: {fault or again.stderr.strip()}"
        return outcome, None
