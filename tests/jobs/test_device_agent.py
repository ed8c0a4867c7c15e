"""The agent's file for devices that are set up by hand, from Python and from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from rexport.jobs.device_agent import DeviceAgentRequest, run
from tests.cli._run import invoke

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_is_the_agent_that_its_hash_names(tmp_path: Path) -> None:
    document = run(DeviceAgentRequest(output=tmp_path / "agent.pyz")).to_json()
    assert document["schema"] == "rexport.devices-agent/1"
    done = subprocess.run([sys.executable, document["file"], "version", "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["sha256"] == document["sha256"]
    assert (tmp_path / "agent.pyz").stat().st_size == document["bytes"]


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    result = invoke("devices", "agent", "-o", tmp_path / "agent.pyz")
    assert (result.exit_code, result.stdout.startswith(f"{tmp_path / 'agent.pyz'}: ")) == (0, True)
    assert "`python3 agent.pyz install BUNDLE.rxb`" in result.stderr
    assert json.loads(invoke("devices", "agent", "-o", tmp_path / "a.pyz", "--json").stdout)["bytes"] > 0
    refused = invoke("devices", "agent", "-o", tmp_path / "none" / "agent.pyz")
    assert (refused.exit_code, "mkdir -p" in refused.stderr) == (1, True)
