"""``rexport eval``: what it prints, and what it refuses; engines too."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from rexport.engine import BuildOptions, build_engine
from rexport.engine_file import BackendName
from rexport.model_file import load, save
from rexport.runtimes.probes import probe
from tests._classifiers import write_classifiers
from tests.cli._run import invoke, run


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two networks and labelled images (see ``tests._classifiers``)."""
    monkeypatch.chdir(tmp_path)
    write_classifiers(tmp_path)
    return tmp_path


def test_the_first_layer_that_differs_is_named(workshop: Path) -> None:
    printed = run("eval wrong.onnx --data test.npz --reference right.onnx --find-divergence")
    assert "The first layer that differs is c (Conv), which computes c." in printed


def test_without_the_flag_little_agreement_is_noted(workshop: Path) -> None:
    opposite = load(Path("right.onnx"))
    head = opposite.graph.initializers["h"]
    assert head.const_value is not None
    head.const_value = ir.tensor(-head.const_value.numpy(), name="h")
    save(opposite, Path("wrong.onnx"))
    result = invoke("eval", "wrong.onnx", "--data", "test.npz", "--reference", "right.onnx")
    assert result.exit_code == 0
    assert "--find-divergence names the first layer" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("eval cifar_resnet8 --weights w.pt --data test.npz --find-divergence", 2, "compares files"),
        ("eval cifar_resnet8 --weights w.pt --data test.npz --reference right.onnx --find-divergence", 2, "compares f"),
        ("eval cifar_resnet8 --weights w.pt --data test.npz --workers 2", 2, "--workers runs ONNX files"),
        ("eval right.onnx --data test.npz --workers processes", 2, "--workers processes: choose local, a number"),
        ("eval right.onnx --data test.npz --on torch", 5, "PyTorch runs networks"),
        ("eval lost.engine --data test.npz", 2, "does not exist"),
    ],
)
def test_what_makes_no_sense_says_why(workshop: Path, command: str, code: int, message: str) -> None:
    Path("w.pt").touch()
    result = invoke(*command.split())
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (code, True), result.stderr


@pytest.mark.slow
def test_an_engine_says_what_it_takes_and_needs_a_gpu(workshop: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")
    options = BuildOptions(backend=BackendName.RTX, capabilities=(86,))
    build_engine(Path("right.onnx"), options).save(Path("right.engine"))
    asked = invoke("eval", "right.engine", "--data", "test.npz", "--find-divergence")
    assert (asked.exit_code, "--reference right.onnx" in asked.stderr) == (2, True), asked.stderr
    if probe("tensorrt-rtx-engine").usable:
        pytest.skip("there is a GPU; tests marked gpu run engines")
    result = invoke("eval", "right.engine", "--data", "test.npz")
    assert (result.exit_code, "NVIDIA" in result.stderr) == (5, True), result.stderr
    facts = json.loads(Path("right.engine.json").read_text())
    Path("right.engine.json").write_text(json.dumps(facts | {"inputs": [facts["inputs"][0] | {"dtype": "text"}]}))
    broken = invoke("eval", "right.engine", "--data", "test.npz")
    assert (broken.exit_code, "build the engine again" in " ".join(broken.stderr.split())) == (1, True), broken.stderr
