"""Asking devices what they run, and rolling them back to the previous version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rexport._apart import require_files_exist
from rexport._progress import Note, unsaid
from rexport.deploy.installation import ask_status, go_back
from rexport.deploy.rollout import QUIET, Pace, Report, require_success, roll_out
from rexport.deploy.ssh import Access

if TYPE_CHECKING:
    from rexport.deploy.inventory import DeviceSelection
    from rexport.deploy.rollout import Result

__all__ = ["DevicesRequest", "DevicesResult", "run"]


@dataclass(frozen=True, kw_only=True)
class DevicesRequest:
    """Devices to ask, or to roll back.

    Attributes:
        devices: Which.
        access: How to log in, and how long to wait.
        parallel: How many at a time.
        rollback: Whether to roll them back; otherwise, they are only asked.
        dry_run: Whether they are only asked all the same.
    """

    devices: DeviceSelection
    access: Access = field(default_factory=Access)
    parallel: int = 8
    rollback: bool = False
    dry_run: bool = False

    @property
    def goes_back(self) -> bool:
        """Whether anything is changed on the devices."""
        return self.rollback and not self.dry_run


@dataclass(frozen=True, kw_only=True)
class DevicesResult:
    """What became of each device, in the order of the request."""

    request: DevicesRequest
    devices: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.devices/1``, or ``rexport.devices-rollback/1``."""
        head: dict[str, Any] = {"schema": "rexport.devices/1"}
        if self.request.rollback:
            head = {"schema": "rexport.devices-rollback/1", "dry_run": self.request.dry_run}
        return {**head, "devices": [device.to_json() for device in self.devices]}

    def require_success(self) -> None:
        """Raise :class:`DeviceError` if a device failed."""
        require_success(self.devices, "Rolling back" if self.request.goes_back else "Asking")


def run(request: DevicesRequest, *, report: Report = QUIET, note: Note = unsaid) -> DevicesResult:
    """Ask the devices, or roll them back.

    Returns:
        What became of each; see :meth:`DevicesResult.require_success`.

    Raises:
        UsageError: No device is named, or one twice.
        InputError: The inventory or a key can't be used.
        UnavailableError: asyncssh is not installed.
    """
    require_files_exist(request)
    pace = Pace(parallel=request.parallel)
    work = go_back if request.goes_back else ask_status
    rollout = roll_out(request.devices.devices(), work, access=request.access, pace=pace, report=report, note=note)
    return DevicesResult(request=request, devices=asyncio.run(rollout))
