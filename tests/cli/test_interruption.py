"""Ctrl-C, a stop from outside and a full disk leave the old file, or none, and nothing else."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# when to send the signal, in seconds after the note: while PyTorch is imported, traced, exported …
_MOMENTS = (0.0, 0.6, 1.2, 2.0)
_EXPORT = [sys.executable, "-m", "rexport", "onnx", "cifar_resnet56", "-o", "out.onnx"]


def _wait_for_note(process: subprocess.Popen[str]) -> None:
    """Wait until the command is in the middle of its work: it has said that the weights are random."""
    assert process.stderr is not None
    assert "random weights" in process.stderr.readline()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("moment", _MOMENTS)
@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle(tmp_path: Path, sent: signal.Signals, exit_code: int, moment: float) -> None:
    (tmp_path / "out.onnx").write_text("the old file")
    with subprocess.Popen(_EXPORT, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _wait_for_note(process)
        time.sleep(moment)
        process.send_signal(sent)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert output == ""
    assert "interrupted" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_text() == "the old file"


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_text_is_executed(tmp_path: Path, sent: signal.Signals, exit_code: int) -> None:
    """Dataclasses and named tuples execute text when their classes are made, at imports then."""
    (tmp_path / "program.py").write_text(
        "import os\n"
        "import sys\n"
        "import rich.console, rich.text\n"  # made early: a later text that ends well would hide one that does not
        "from rexport.cli import _console, main\n"
        f"_console.print_json = lambda document: exec('os.kill(os.getpid(), {int(sent)})\\nfor _ in range(9): pass')\n"
        "sys.argv = ['rexport', 'models', '--json']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert "interrupted" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_no_room_for_the_file(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("the old file")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a thirtieth of the model

    done = subprocess.run(_EXPORT, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert "no room" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_text() == "the old file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a full disk")
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("tmpfs can't be mounted here")
    try:
        done = subprocess.run(_EXPORT, cwd=disk, capture_output=True, text=True)
        assert done.returncode == 1
        assert "no room" in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
