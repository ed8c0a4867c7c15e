"""The vendor, a device that trusts it, and the agent's one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from tests.device._vendor import device_of, new_vendor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rexport.device._state import Device
    from tests.faults.vendor import Vendor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the agent runs on Linux")


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    pytest.importorskip("cryptography", reason="signing takes it: pip install 'rexport[deploy]'")
    return new_vendor(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def device(tmp_path: Path, vendor: Vendor) -> Device:
    """A device that trusts the vendor and has nothing installed."""
    return device_of(tmp_path, vendor)


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / AGENT_NAME
    path.write_bytes(agent_bytes())
    return path


@pytest.fixture
def agent(agent_file: Path, device: Device) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run a verb of the real agent on the device, and return its exit code and its document."""

    def run(*arguments: str | Path, given: bytes = b"", **environment: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, agent_file, "--root", device.root, "--json", *arguments],
            input=given,
            capture_output=True,
            env={**os.environ, **environment},
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    return run
