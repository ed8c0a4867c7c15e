"""A disk that is really full."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rexport.device import _install
from rexport.device._errors import InstallError
from rexport.device._install import install, load
from rexport.device._state import Device
from tests.device._vendor import device_of, openssl_once
from tests.faults.vendor import archive, passed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.vendor import Vendor


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages are left: the install is done, or the old version is active, and there is room again."""
    monkeypatch.setattr(_install, "_MARGIN", -(1 << 30))  # or it would be found out before anything is written
    openssl_once(monkeypatch)
    device = device_of(small_disk, vendor)
    install(device, archive(vendor.bundle(1)), check=passed)
    outcomes = set()
    for pages in range(24):
        filler = small_disk / "filler"
        room = os.statvfs(small_disk).f_bavail
        filler.write_bytes(bytes(4096 * max(room - pages, 0)))
        try:
            with device.locked(0):
                install(device, archive(vendor.bundle(2)), check=passed)
            outcomes.add("done")
        except (InstallError, OSError):
            outcomes.add("failed")
            assert load(device).manifest.version == 1
        filler.unlink()
        with Device(device.root).locked(0):
            pass
        if load(device).manifest.version == 2:
            break
        assert os.statvfs(small_disk).f_bavail >= room - 3
    assert outcomes == {"done", "failed"}
    assert (load(device).manifest.version, device.read()["pending"]) == (2, None)
