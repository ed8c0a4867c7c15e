"""Processes that a test starts, stops or kills, as Linux lists them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

__all__ = ["becomes", "check_end_with_parent", "linux"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def becomes(pid: int, *states: str) -> bool:
    """Wait until a process is in a state as Linux abbreviates it: ``T`` is stopped, ``Z`` a zombie; or ``gone``."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            state = "gone"
        if state in states:
            return True
        time.sleep(0.05)
    return False


def check_end_with_parent(code: str, *states: str) -> None:
    """Kill a process of Python that runs ``code``, and check that the child whose id it prints ends as well.

    Args:
        code: What the parent runs.
        states: What the child is in before; without them, it has 0.3 seconds to get to work.
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if states:
            assert becomes(pid, *states)
        else:
            time.sleep(0.3)
        parent.kill()
    if not becomes(pid, "gone", "Z"):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the process is still there")
