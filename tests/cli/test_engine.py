"""The command, on a real small network; what is refused is refused in a sentence, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rexport.calibration import calibrate
from rexport.engine.gpu import this_gpu
from rexport.model_file import save
from rexport.quantization import TENSORRT, X86, quantize
from tests._graphs import convolution, graph
from tests.cli._run import interrupted, invoke, rexport, run
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from rexport.quantization import Target
    from tests._products import Products


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")


@pytest.fixture
def quantized(products: Products, tmp_path: Path) -> Callable[[Target], Path]:
    """Writes a quantized network to the file m.onnx of an otherwise empty folder."""

    def write(target: Target) -> Path:
        def make(folder: Path) -> None:
            model = exported("cifar_resnet8")
            save(quantize(model, calibrate(model, [pictures(2)]), target=target).model, folder / "m.onnx")

        return Path(shutil.copy(products.folder("quantized", target.name, make=make) / "m.onnx", tmp_path))

    return write


@pytest.mark.slow
def test_an_engine_and_what_it_is(tmp_path: Path, quantized: Callable[[Target], Path]) -> None:
    output = tmp_path / "m.engine"
    done = rexport("engine", quantized(TENSORRT), "-o", output, "--sm", "86,89", "--batch", "1:2:4", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "rexport.engine/1"
    assert (document["capabilities"], document["batch"]) == ([86, 89], [1, 2, 4])
    assert document == {**json.loads((tmp_path / "m.engine.json").read_text()), "file": str(output)}
    assert "10 in int8" in run(f"inspect {output}")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--backend", "abacus"), 2, "choose tensorrt, rtx or onnxruntime"),
        (("--backend", "onnxruntime"), 2, "call it "),
        (("--sm", "87"), 5, "a Jetson; deploy the ONNX file"),
        (("--sm", "many"), 2, "such as 86,89"),
        (("--sm", "90"), 5, "a data-center GPU"),
        (("--sm", "75,86"), 2, "one with --sm 75"),
        (("--batch", "8:1"), 2, "such as 1:8:32"),
    ],
)
def test_mistakes(
    tmp_path: Path, quantized: Callable[[Target], Path], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = invoke("engine", quantized(TENSORRT), "-o", tmp_path / "m.engine", *arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_a_file_for_another_target_writes_nothing(tmp_path: Path, quantized: Callable[[Target], Path]) -> None:
    done = invoke("engine", quantized(X86), "-o", tmp_path / "m.engine")
    assert done.exit_code == 1
    assert "rule symmetric" in done.stderr
    assert not (tmp_path / "m.engine").exists()


def _slow_to_build(folder: Path) -> Path:
    """Write a model of sixty different convolutions, which take the compiler some seconds."""
    body = "".join(f"x{i + 1} = Conv <pads = [1, 1, 1, 1]> (x{i}, w{i}) " for i in range(60))
    widths = [3, *(32 + 8 * (i % 7) for i in range(60))]
    weights = {f"w{i}": convolution(widths[i + 1], widths[i], seed=i) for i in range(60)}
    save(graph(body, weights, inputs="float[N, 3, 16, 16] x0", outputs="float[N, C, H, W] x60"), folder / "m.onnx")
    return folder / "m.onnx"


def _worker_of(process: subprocess.Popen[str]) -> int | None:
    """Return the process that builds for another, which had no time to end, or ``None`` if there is none yet."""
    for task in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (task / "cmdline").read_bytes(), (task / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it ended
            continue
        if b"rexport.engine.worker" in words and int(parent) == process.pid:
            return int(task.name)
    return None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("loaded", ["python", "tensorrt"])
def test_ctrl_c_ends_a_build(tmp_path: Path, loaded: str) -> None:
    model = _slow_to_build(tmp_path)
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-m", "rexport", "engine", str(model), "-o", str(tmp_path / "m.engine")]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "work")}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        while (worker := _worker_of(process)) is None:
            assert process.poll() is None
            time.sleep(0.02)
        while loaded not in Path(f"/proc/{worker}/maps").read_text():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the worker too
        output, _ = interrupted(process)
    assert output == ""
    assert not Path(f"/proc/{worker}").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "work"]
    assert not [path for path in (tmp_path / "work").iterdir() if path.is_dir()]  # ONNX Runtime leaves a file there


@pytest.mark.slow
def test_weights_are_filled_into_the_engine_that_was_stripped_alone(tmp_path: Path) -> None:
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3)}), tmp_path / "m.onnx")
    engine, whole = tmp_path / "m.engine", tmp_path / "whole.engine"
    run(f"engine {tmp_path}/m.onnx -o {engine} --sm 86")

    def refit(model: str, *, stripped: bool) -> Result:
        facts = json.loads((tmp_path / "m.engine.json").read_text())
        (tmp_path / "m.engine.json").write_text(json.dumps({**facts, "stripped": stripped}))
        return invoke("engine", tmp_path / model, "--refit", engine, "-o", whole)

    done = refit("m.onnx", stripped=False)
    assert (done.exit_code, "has its weights" in done.stderr) == (2, True), done.stderr
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3, seed=1)}), tmp_path / "other.onnx")
    done = refit("other.onnx", stripped=True)
    assert (done.exit_code, "is another file" in done.stderr) == (1, True), done.stderr
    done = refit("m.onnx", stripped=True)
    if this_gpu() is None:
        assert (done.exit_code, "needs the NVIDIA GPU" in done.stderr) == (5, True), done.stderr
    assert not whole.exists() or done.exit_code == 0
    engine.write_bytes(engine.read_bytes()[:-1])
    assert refit("m.onnx", stripped=True).exit_code == 1


@pytest.mark.gpu
def test_on_a_gpu_a_stripped_engine_is_smaller_and_gets_its_weights_back(tmp_path: Path) -> None:
    if (gpu := this_gpu()) is None:
        pytest.skip("no NVIDIA GPU is here")
    model, stripped, whole = _slow_to_build(tmp_path), tmp_path / "s.engine", tmp_path / "w.engine"
    done = rexport("engine", model, "-o", stripped, "--strip", "--sm", str(gpu.capability))
    assert done.returncode == 0, done.stderr
    assert "without its weights" in done.stdout
    done = rexport("engine", model, "--refit", stripped, "-o", whole)
    assert done.returncode == 0, done.stderr
    assert stripped.stat().st_size < whole.stat().st_size
    assert json.loads((tmp_path / "w.engine.json").read_text())["stripped"] is False
