"""Installing the peers and running their commands, with commands of our own in their place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rexport._errors import UnavailableError, UsageError
from tests.benchmarks._rexport import peers_module


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_commands_time_and_memory_are_its_own(tmp_path: Path) -> None:
    outcome = peers_module("process_tree").run_tree(
        _python("import time; held = bytearray(200 << 20); time.sleep(0.5)"), cwd=tmp_path
    )
    assert outcome.failure is None
    assert 0.5 < outcome.seconds < 30
    if sys.platform == "linux":
        # 200 MiB and an interpreter, which takes 8 to 15
        assert 200 < outcome.peak_memory_mib < 240


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_of_children_counts(tmp_path: Path) -> None:
    code = """
import subprocess, sys, time
hold = "held = bytearray(100 << 20); print(flush=True); input()"
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
children = [subprocess.Popen([sys.executable, "-c", hold], **pipes) for _ in range(3)]
for child in children: child.stdout.readline()
time.sleep(0.5)
for child in children: child.communicate(b"\\n")
"""
    outcome = peers_module("process_tree").run_tree(_python(code), cwd=tmp_path)
    assert 300 < outcome.peak_memory_mib < 380


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    run_tree = peers_module("process_tree").run_tree
    failed = run_tree(
        _python("import sys; print('reading', file=sys.stderr); raise ValueError('no weights')"), cwd=tmp_path
    )
    assert failed.failure == "It ended with exit code 1: ValueError: no weights"
    killed = run_tree(_python("import os; os.kill(os.getpid(), 9)"), cwd=tmp_path)
    assert killed.failure == "It ended by SIGKILL."
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_hangs_is_stopped(tmp_path: Path) -> None:
    outcome = peers_module("process_tree").run_tree(_python("import time; time.sleep(60)"), cwd=tmp_path, limit=0.5)
    assert outcome.failure == "It was stopped after 0 seconds."
    assert outcome.seconds < 20


@pytest.mark.slow
def test_what_cant_be_installed_says_why(tmp_path: Path) -> None:
    environments = peers_module("environments")
    missing = environments.Environment(
        name="missing", distribution="missing", requirements=(str(tmp_path / "nothing-of-this-name.whl"),)
    )
    with pytest.raises(UnavailableError, match=r"missing can't be installed in missing: ERROR: .*nothing-of-this-name"):
        missing.install(tmp_path)
    assert not (tmp_path / "missing" / "rexport-peer.txt").exists()
    with pytest.raises(UsageError, match="choose from onnxruntime, nncf"):
        environments.environment_named("missing")


@pytest.mark.slow
def test_an_environment_is_made_once(tmp_path: Path) -> None:
    empty = peers_module("environments").Environment(name="empty", distribution="pip", requirements=("pip",))
    python = empty.install(tmp_path)
    before = (tmp_path / "empty" / "rexport-peer.txt").stat().st_mtime_ns
    assert empty.install(tmp_path) == python
    assert (tmp_path / "empty" / "rexport-peer.txt").stat().st_mtime_ns == before
    assert list(empty.versions(python)) == ["pip"]
    inside = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(inside.stdout.strip()) == tmp_path / "empty"
