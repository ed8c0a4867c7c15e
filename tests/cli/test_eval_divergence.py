"""``rexport eval --on`` and ``--find-divergence``, and engines."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from rexport.engine import BackendName, BuildOptions, build_engine
from rexport.model_file import load, save
from rexport.runtimes.probes import probe
from tests._graphs import convolution, graph
from tests.cli._run import invoke, run, run_json

_BODY = (
    "a = Conv<pads = [1, 1, 1, 1]>(x, u) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, v) d = Add(a, c) e = Relu(d) "
    "p = GlobalAveragePool(e) f = Flatten(p) y = Gemm(f, h)"
)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two residual networks of which the second convolution differs, and labelled images."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    weights = {"u": convolution(8, 3), "h": random.standard_normal((8, 6)).astype(np.float32)}
    for seed, name in enumerate(("right.onnx", "wrong.onnx")):
        save(graph(_BODY, weights | {"v": convolution(8, 8, seed=seed)}, outputs="float[N, 6] y"), Path(name))
    images = random.standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez("test.npz", images=images, labels=random.integers(0, 6, 40))
    return tmp_path


def test_the_first_layer_that_differs_is_named(workshop: Path) -> None:
    printed = run("eval wrong.onnx --data test.npz --reference right.onnx --find-divergence")
    assert "The first layer that differs is c (Conv), which computes c." in printed
    found = run_json("eval wrong.onnx --data test.npz --reference right.onnx --find-divergence")["divergence"]
    assert (found["first"]["node"], found["first"]["inputs"], found["arithmetic"]) == ("c", ["b"], "float32")
    assert [row["tensor"] for row in found["rows"] if not row["diverges"]]
    assert found["first"]["largest"] > found["first"]["peak"] > 1


def test_without_the_flag_little_agreement_is_noted(workshop: Path) -> None:
    opposite = load(Path("right.onnx"))
    head = opposite.graph.initializers["h"]
    assert head.const_value is not None
    head.const_value = ir.tensor(-head.const_value.numpy(), name="h")
    save(opposite, Path("wrong.onnx"))
    result = invoke("eval", "wrong.onnx", "--data", "test.npz", "--reference", "right.onnx")
    assert result.exit_code == 0
    assert "--find-divergence names the first layer" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="pip install 'rexport[openvino]'")
def test_another_runtime_is_compared_with_the_file_itself(workshop: Path) -> None:
    document = run_json("eval right.onnx --data test.npz --on openvino --find-divergence")
    assert document["divergence"]["first"] is None
    assert document["agreement"] == 1
    alone = run_json("eval right.onnx --data test.npz --on openvino")
    assert (alone["top1"], "agreement" in alone) == (run_json("eval right.onnx --data test.npz")["top1"], False)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("eval cifar_resnet8 --weights w.pt --data test.npz --find-divergence", 2, "compares files"),
        ("eval right.onnx --data test.npz --on openvino --workers 2", 2, "leave it or --on openvino out"),
        ("eval right.onnx --data test.npz --on abacus", 2, "There is no runtime 'abacus'"),
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
