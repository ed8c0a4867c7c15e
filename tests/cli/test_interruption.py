"""Ctrl-C, a stop from outside and a full disk leave the old file, or none, and nothing else."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rexport.model_file import save
from tests._graphs import convolution, graph
from tests.cli._run import interrupted, invoke

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits on file sizes are POSIX's")
_SIGNALS = pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
# when to send the signal, in seconds after the note: while PyTorch is imported, traced, exported …
_MOMENTS = (0.0, 0.6, 1.2, 2.0)
# sends itself a signal where CPython is about to import a module, or to open a file
_PROGRAM = """
import os, sys
from rexport.cli import main
sent = []

def hook(event, arguments):
    if event == {event!r} and {name!r} in str(arguments[0]) and not sent:
        sent.append(event)
        os.kill(os.getpid(), {signum})

sys.addaudithook(hook)
main()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that holds an old file and nothing else."""
    monkeypatch.chdir(tmp_path)
    Path("out.onnx").write_text("the old file")
    return tmp_path


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@_OF_POSIX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "name", "sent", "exit_code"),
    [
        ("import", "torch._dynamo.symbolic_convert", signal.SIGINT, 130),  # PyTorch is exporting
        ("import", "torch._dynamo.symbolic_convert", signal.SIGTERM, 143),
        ("open", ".part", signal.SIGINT, 130),
    ],
)
def test_a_signal_in_the_middle(folder: Path, event: str, name: str, sent: signal.Signals, exit_code: int) -> None:
    program = _PROGRAM.format(event=event, name=name, signum=int(sent))
    command = [sys.executable, "-c", program, "onnx", "cifar_resnet8", "-o", "out.onnx"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        output, errors = interrupted(process, exit_code)
    assert "random weights" in errors  # it was in the middle of its work
    assert output == ""
    assert _files(folder) == {"out.onnx": b"the old file"}


@_OF_POSIX
@pytest.mark.deep
@pytest.mark.parametrize("moment", _MOMENTS)
@_SIGNALS
def test_a_signal_from_outside(folder: Path, sent: signal.Signals, exit_code: int, moment: float) -> None:
    command = [sys.executable, "-m", "rexport", "onnx", "cifar_resnet56", "-o", "out.onnx"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "random weights" in process.stderr.readline()  # it is in the middle of its work
        time.sleep(moment)
        process.send_signal(sent)
        output, _ = interrupted(process, exit_code)
    assert output == ""
    assert _files(folder) == {"out.onnx": b"the old file"}


@pytest.mark.slow
@_OF_POSIX
@_SIGNALS
def test_a_signal_while_text_is_executed(folder: Path, sent: signal.Signals, exit_code: int) -> None:
    """Dataclasses and named tuples execute text when their classes are made, at imports then."""
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3)}), Path("m.onnx"))
    Path("program.py").write_text(
        "import os\n"
        "import sys\n"
        "import rich.console, rich.text\n"  # made early: a later text that ends well would hide one that does not
        "from rexport.cli import _console, main\n"
        f"_console.print_json = lambda document: exec('os.kill(os.getpid(), {int(sent)})\\nfor _ in range(9): pass')\n"
        "sys.argv = ['rexport', 'inspect', 'm.onnx', '--json']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "program"], capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert "interrupted" in done.stderr


@pytest.mark.slow
@_OF_POSIX
def test_no_room_for_the_file(folder: Path, export: Callable[..., object]) -> None:
    export("m.onnx")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a third of the model

    command = [sys.executable, "-m", "rexport", "fuse", "m.onnx", "-o", "out.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert "no room" in done.stderr
    assert "Traceback" not in done.stderr
    Path("m.onnx").unlink()
    assert _files(folder) == {"out.onnx": b"the old file"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a full disk")
def test_a_full_disk(folder: Path, export: Callable[..., object]) -> None:
    export("m.onnx")
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("tmpfs can't be mounted here")
    try:
        done = invoke("fuse", "m.onnx", "-o", str(disk / "out.onnx"))
        assert done.exit_code == 1
        assert "no room" in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
