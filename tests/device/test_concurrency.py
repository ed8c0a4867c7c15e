"""Several agents at once on one device, and a disk that is really full."""

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
from tests.device._vendor import archive, device_of, openssl_once, passed, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.vendor import Vendor

_ROUNDS = 10
_AGENT = """
import sys
from pathlib import Path
from rexport.device._container import open_bundle
from rexport.device._errors import AgentError
from rexport.device._install import install, roll_back
from rexport.device._self_check import Checked
from rexport.device._state import Device

def passed(version, quick=False):
    return Checked("onnxruntime", "1.0", None, True, 1.0)

print("ready", flush=True)
for line in sys.stdin:
    device = Device(Path(line.strip()))
    try:
        with device.locked(30):
            if sys.argv[1] == "rollback":
                done = roll_back(device, check=passed)
            else:
                with open_bundle(Path(sys.argv[1])) as bundle:
                    done = install(device, bundle, check=passed)
        print("done", done.manifest.version, flush=True)
    except AgentError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.slow
def test_two_installs_and_a_rollback_at_once(tmp_path: Path, vendor: Vendor) -> None:
    acts = [*(str(write(vendor.bundle(version), tmp_path / f"{version}.rxb")) for version in (3, 4)), "rollback"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-c", _AGENT, act], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for act in acts
    ]
    try:
        assert [_said(agent) for agent in agents] == ["ready"] * 3
        for number in range(_ROUNDS):
            (tmp_path / str(number)).mkdir()
            device = device_of(tmp_path / str(number), vendor)
            for version in (1, 2):
                install(device, archive(vendor.bundle(version)), check=passed)
            for agent in agents:
                print(device.root, file=agent.stdin, flush=True)
            three, four, back = (_said(agent) for agent in agents)
            assert (three in ("done 3", "RefusedError"), four) == (True, "done 4")  # 3 is too low after 4
            assert back in {"done 1", "done 2", "done 3"}
            state = device.read()
            assert (state["highest"], state["pending"], state["active"]) == (4, None, device.active)
            assert load(device).manifest.version in {4, int(back.split()[1])}
            assert not list(device.staging.iterdir())
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()


def _said(agent: subprocess.Popen[str]) -> str:
    assert agent.stdout is not None
    return agent.stdout.readline().strip()


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
