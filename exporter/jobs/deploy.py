"""Installing a bundle on devices over SSH, batch by batch; or writing it down for Ansible or Mender."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, WRITE, require_files_apart
from rexport._errors import UsageError
from rexport._progress import Note, unsaid
from rexport.deploy.ansible import write_role
from rexport.deploy.installation import Installation
from rexport.deploy.inventory import Device, DeviceSelection, override
from rexport.deploy.mender import write_module
from rexport.deploy.remote import Cargo, Shipment
from rexport.deploy.rollout import QUIET, Pace, Report, require_success, roll_out
from rexport.deploy.signing import load_public_key
from rexport.deploy.ssh import Access
from rexport.jobs.result import JobResult, Table

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.rollout import Result
    from rexport.deploy.signing import PublicKey

__all__ = ["DeployRequest", "DeployResult", "run"]


@dataclass(frozen=True, kw_only=True)
class DeployRequest:
    """A bundle, and where it goes.

    Attributes:
        bundle: An ``.rxb`` file, or the folder of a bundle.
        devices: Which devices get it.
        access: How to log in, and how long to wait.
        pace: How many devices at a time.
        trust: A public key that devices are made to trust first; the bundle must be signed with it.
        dry_run: Whether to look at the devices and change nothing.
        ansible: The folder for an Ansible role and playbook, which are written instead.
        mender: The folder for a Mender update module, likewise.

    Raises:
        UsageError: Both folders are given.
    """

    bundle: Path = field(metadata=READ)
    devices: DeviceSelection = field(default_factory=DeviceSelection)
    access: Access = field(default_factory=Access)
    pace: Pace = field(default_factory=lambda: Pace(batch_size=8))
    trust: Path | None = field(default=None, metadata=READ)
    dry_run: bool = False
    ansible: Path | None = field(default=None, metadata=WRITE)
    mender: Path | None = field(default=None, metadata=WRITE)

    def __post_init__(self) -> None:
        if self.ansible is not None and self.mender is not None:
            raise UsageError("--ansible and --mender can't be combined; pass one of them.")


@dataclass(frozen=True, kw_only=True, repr=False)
class DeployResult(JobResult):
    """What became of a request.

    Attributes:
        request: The request.
        bundle: What was read of the bundle.
        devices: What became of each device, in the order of the request; empty if files were written instead.
        files: Those files.
    """

    request: DeployRequest
    bundle: Cargo
    devices: tuple[Result, ...] = ()
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.deploy/1``, or ``rexport.deploy-files/1``."""
        bundle = self.bundle.to_json()
        if self.files:
            return {"schema": "rexport.deploy-files/1", "bundle": bundle, "files": list(map(str, self.files))}
        return {
            "schema": "rexport.deploy/1",
            "bundle": bundle,
            "dry_run": self.request.dry_run,
            "counts": Counter(str(device.outcome) for device in self.devices),
            "devices": [device.to_json() for device in self.devices],
        }

    def facts(self) -> dict[str, str]:
        """Return the bundle, and how many devices came to what."""
        if self.files:
            return {"bundle": str(self.request.bundle), "files": ", ".join(map(str, self.files))}
        counts = Counter(str(device.outcome) for device in self.devices)
        devices = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        return {"bundle": str(self.request.bundle), "devices": devices}

    def as_table(self) -> Table | None:
        """Return what became of each device."""
        if not self.devices:
            return None
        rows = [(str(device.device), str(device.outcome), device.reason or "") for device in self.devices]
        return Table(("device", "outcome", "reason"), rows)

    def require_success(self) -> None:
        """Raise :class:`DeviceError` if a device failed, or was not begun."""
        require_success(self.devices, "Checking" if self.request.dry_run else "Installing")


def run(request: DeployRequest, *, report: Report = QUIET, note: Note = unsaid) -> DeployResult:
    """Install the bundle on the devices, or write the files for another tool.

    Returns:
        What became of each device; see :meth:`DeployResult.require_success`.

    Raises:
        UsageError: No device is named, or one twice; or a file that would be written is read.
        InputError: The bundle, the inventory or a key can't be used.
        VerificationError: The bundle is not signed with the key to trust.
        OutputError: The files can't be written.
        UnavailableError: asyncssh or cryptography is not installed.
    """
    require_files_apart(request)
    selection, for_tool = request.devices, (request.ansible or request.mender) is not None
    devices: tuple[Device, ...] = ()
    if not for_tool or selection.addresses or selection.inventory is not None:
        devices = selection.devices()
    cargo = Cargo.load(request.bundle, trust=request.trust)
    key = load_public_key(request.trust) if request.trust else None
    if for_tool:
        return DeployResult(request=request, bundle=cargo, files=_write(request, cargo, key, devices))
    work = Installation(cargo=cargo, trust=key, dry_run=request.dry_run)
    rollout = roll_out(devices, work, access=request.access, pace=request.pace, report=report, note=note)
    return DeployResult(request=request, bundle=cargo, devices=asyncio.run(rollout))


def _write(
    request: DeployRequest, cargo: Cargo, key: PublicKey | None, devices: tuple[Device, ...]
) -> tuple[Path, ...]:
    """Write the files for Ansible or Mender; devices without a folder or Python of their own have the request's."""
    selection = request.devices
    inputs = [path for path in (request.bundle, selection.inventory, request.trust) if path is not None]
    device = override(Device(host="device"), root=selection.root, python=selection.python)
    shipment = Shipment(cargo=cargo, key=key, root=device.root, python=device.python, inputs=inputs)
    if request.ansible is not None:
        return write_role(request.ansible, shipment, devices=devices)
    assert request.mender is not None
    return write_module(request.mender, shipment)
