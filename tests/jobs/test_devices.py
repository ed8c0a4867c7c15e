"""Asking devices from Python, and having them go back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport._errors import DeviceError
from rexport.deploy.inventory import DeviceSelection
from rexport.deploy.ssh import Access
from rexport.jobs.devices import DevicesRequest, run
from tests.faults.ssh_site import site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "schema", "activity"),
    [
        ({}, "rexport.devices/1", "Asking"),
        ({"rollback": True}, "rexport.devices-rollback/1", "Rolling back"),
        ({"rollback": True, "dry_run": True}, "rexport.devices-rollback/1", "Asking"),
    ],
)
def test_a_device_without_an_agent(tmp_path: Path, options: dict[str, bool], schema: str, activity: str) -> None:
    with site(tmp_path, 1) as there:
        access = Access(identity=there.identity, known_hosts=there.known_hosts)
        devices = DeviceSelection(inventory=there.inventory())
        result = run(DevicesRequest(devices=devices, access=access, **options))
    document = result.to_json()
    assert document["schema"] == schema
    assert document.get("dry_run", False) == options.get("dry_run", False)
    assert [device["outcome"] for device in document["devices"]] == ["failed"]
    with pytest.raises(DeviceError, match=rf"^{activity} failed on 1 of 1 devices\. .* has no agent"):
        result.require_success()
