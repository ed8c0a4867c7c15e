"""What is said of files, held against what is known of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rexport._errors import DataError, InputError, ModelFileError
from rexport.calibration import Calibrator, calibrate, choose_range
from rexport.inspection import inspect_file
from rexport.inspection.layers import inspected_layers
from rexport.model_file import Metadata, model_hash, save
from rexport.models import build
from rexport.models.summary import summarize
from rexport.passes.float16 import with_float16
from rexport.quantization import OPENVINO, TENSORRT, X86, quantize
from tests._graphs import convolution, graph
from tests.quantization._tables import exported, pictures, table_of

if TYPE_CHECKING:
    from pathlib import Path


_NAME = "cifar_resnet8"


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return exported(_NAME)


def _described(model: ir.Model, folder: Path) -> dict[str, Any]:
    save(model, folder / "m.onnx")
    report = inspect_file(folder / "m.onnx")
    assert report.kind == "onnx"
    return json.loads(json.dumps(report.document))


def test_a_float_file(model: ir.Model, tmp_path: Path) -> None:
    document = _described(model, tmp_path)
    assert document["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, 32, 32]}]
    assert document["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}]
    assert document["precisions"] == {"float32": 14}
    assert {layer["why"] for layer in document["layers"]} == {""}
    assert document["operators"]["Conv"] == 9
    assert document["metadata"]["preprocessing"]["size"] == 32
    assert document["bytes"] == (tmp_path / "m.onnx").stat().st_size
    # the shortcuts of option A, which PyTorch neither multiplies nor has weights for, are convolutions in the file
    known = summarize(build(_NAME), input_size=32)
    shortcuts = {"layer2.0.downsample", "layer3.0.downsample"}
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert document["macs"] - sum(layers[name]["macs"] for name in shortcuts) == known.macs
    assert layers["conv1"]["macs"] == 16 * 32 * 32 * 3 * 9
    assert layers["conv1"]["parameters"] == 16 * 3 * 9 + 16
    assert layers["fc"]["macs"] == 640


@pytest.mark.parametrize("target", [X86, OPENVINO, TENSORRT, TENSORRT.with_float16()], ids=lambda t: f"{t.name}")
def test_a_quantized_file_says_what_quantize_said(model: ir.Model, tmp_path: Path, target: Any) -> None:
    result = quantize(model, calibrate(model, [pictures(4)]), target=target, keep_float={"layer2.0.conv1"})
    document = _described(result.model, tmp_path)
    found = {layer["name"]: layer for layer in document["layers"]}
    assert {name: layer["precision"] for name, layer in found.items()} == {
        layer.name: layer.precision for layer in result.layers
    }
    assert {name: layer["why"] for name, layer in found.items() if layer["precision"] != "int8"} == {
        layer.name: layer.why for layer in result.layers if layer.precision != "int8"
    }
    assert found["layer2.0.conv1"]["why"] == "kept in float"
    weight = next(node for node in model.graph if node.name == "conv1").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    largest = np.abs(weight.const_value.numpy()).reshape(16, -1).max(axis=1)
    assert found["conv1"]["weight_scales"] == pytest.approx([largest.min() / 127, largest.max() / 127], rel=2e-3)
    assert document["metadata"]["quantization"]["target"] == target.name


def test_files_of_others_are_judged_by_their_nodes(model: ir.Model) -> None:
    result = quantize(model, calibrate(model, [pictures(4)]), target=X86, keep_float={"layer2.0.conv1"}).model
    replace(Metadata.of(result), quantization=None).write_to(result)
    layers = {layer.name: layer for layer in inspected_layers(result)}
    assert {name for name, layer in layers.items() if layer.precision != "int8"} == {"layer2.0.conv1"}
    assert layers["layer2.0.conv1"].why == "its weight is stored in float"
    assert layers["conv1"].why == "it reads integers"


def test_what_reads_floats_is_no_integer_layer() -> None:
    body = "a = Conv (x, w) b = Sigmoid (a) c = Conv (b, v) d = Tanh (c) e = Conv (d, u) y = Tanh (e)"
    weights = {"w": convolution(3, 3), "v": convolution(3, 3, seed=1), "u": convolution(3, 3, seed=2)}
    model = graph(body, weights)
    table = table_of(model, **dict.fromkeys("xabcde", (-3.0, 3.0)))
    layers = {layer.name: layer for layer in inspected_layers(quantize(model, table, target=X86).model)}
    assert [layer.precision for layer in layers.values()] == ["int8"] * 3 + ["float32", "int8", "float32"]
    assert layers["d"].why == "Tanh has no integer kernel"


def test_a_float16_file(model: ir.Model, tmp_path: Path) -> None:
    document = _described(with_float16(model, largest={"layer2.0.relu": 1e5}).model, tmp_path)
    assert document["precisions"] == {"float16": 13, "float32": 1}  # and a ReLU, which belongs to the layer before
    whys = {layer["name"]: layer["why"] for layer in document["layers"] if layer["precision"] == "float32"}
    assert whys["layer2.0.conv2"] == "'layer2.0.relu' reaches 100,000, and float16 ends at 65,504"


def test_weights_that_are_inputs_too_are_weights(tmp_path: Path) -> None:
    weights = {"w": convolution(4, 3), "b": np.zeros(4, np.float32)}
    inputs = "float[N, 3, 16, 16] x, float[4, 3, 3, 3] w, float[4] b"
    document = _described(graph("y = Conv (x, w, b)", weights, inputs=inputs), tmp_path)
    assert [tensor["name"] for tensor in document["inputs"]] == ["x"]
    assert document["parameters"] == 4 * 3 * 9 + 4


def test_a_file_of_other_operators_has_no_opset(tmp_path: Path) -> None:
    model = graph("y = Relu (x)")
    model.graph.node(0).domain = "com.example"
    model.opset_imports["com.example"] = model.opset_imports.pop("")
    document = _described(model, tmp_path)
    assert (document["opset"], document["operators"]) == (None, {"Relu": 1})


def test_a_calibration_table(model: ir.Model, tmp_path: Path) -> None:
    table = calibrate(model, [pictures(4)])
    (tmp_path / "t.json").write_text(table.to_json())
    report = inspect_file(tmp_path / "t.json")
    assert report.kind == "calibration"
    assert (report.document["images"], report.document["model_sha256"]) == (4, model_hash(model))
    tensors = report.document["tensors"]
    assert tensors.keys() == table.tensors.keys()
    for calibrator in (Calibrator.MINMAX, Calibrator.MSE):
        chosen = choose_range(table.tensors["relu"], calibrator, steps=255, symmetric=False)
        assert tensors["relu"][str(calibrator)] == [chosen.low, chosen.high]


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("m.onnx", b"no model", ModelFileError, "is not an ONNX file"),
        ("t.json", b'{"schema": "rexport.calibration/2"}', DataError, "not a calibration table"),
        ("t.json", b'{"schema": "rexport.bench/1"}', InputError, "is none of what can be inspected"),
        (
            "e",
            b"",
            InputError,
            "is none of what can be inspected: deployment settings, a calibration table, an engine, an ONNX",
        ),
    ],
)
def test_broken_and_unknown_files_are_refused(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        inspect_file(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        inspect_file(tmp_path)
    with pytest.raises(InputError, match=r"nothing\.onnx does not exist"):
        inspect_file(tmp_path / "nothing.onnx")


def test_sums_that_miss_a_layer_say_so(tmp_path: Path) -> None:
    unknown = graph(
        "c = Conv(x, w) i = NonZero(c) k = Shape(i) n = Slice(k, a, b) z = ConstantOfShape(n) d = Unsqueeze(z, u)"
        "y = MatMul(d, d)",
        {"w": convolution(4, 3), "a": np.array([1]), "b": np.array([2]), "u": np.array([0])},
        outputs="float[A, B] y",
    )
    save(unknown, tmp_path / "m.onnx")
    report = inspect_file(tmp_path / "m.onnx")
    macs = 4 * 14 * 14 * 27
    assert (report.document["macs"], report.document["macs_complete"]) == (macs, False)
    assert dict(report.facts)["MACs"] == f"at least {macs:,} for one picture of 16×16"


def test_sums_of_branches_say_so(tmp_path: Path) -> None:
    branches = graph(
        "y = If (yes) <then_branch = t () => (float[N, 4, 14, 14] a) { a = Conv(x, w) },"
        "else_branch = e () => (float[N, 4, 14, 14] b) { b = Conv(x, w) }>",
        {"w": convolution(4, 3), "yes": np.array(True)},
        outputs="float[N, 4, 14, 14] y",
    )
    save(branches, tmp_path / "m.onnx")
    document = inspect_file(tmp_path / "m.onnx").document
    assert (document["macs_complete"], document["parameters_complete"]) == (False, False)


def test_types_that_a_file_leaves_out_are_inferred(tmp_path: Path) -> None:
    proto = ir.to_proto(graph("c = Conv(x, w) y = Relu(c)", {"w": convolution(4, 3)}))
    del proto.graph.value_info[:]
    onnx.save(proto, tmp_path / "m.onnx")
    document = inspect_file(tmp_path / "m.onnx").document
    assert document["precisions"] == {"float32": 1}
    assert (document["macs_complete"], document["parameters_complete"]) == (True, True)


def test_integer_operators_count(tmp_path: Path) -> None:
    weight = np.ones((4, 3, 1, 1), np.int8)
    model = graph(
        "q, s, z = DynamicQuantizeLinear(x) y = ConvInteger(q, w, z)", {"w": weight}, outputs="int32[N, 4, 16, 16] y"
    )
    save(model, tmp_path / "m.onnx")
    document = inspect_file(tmp_path / "m.onnx").document
    assert (document["macs"], document["parameters"]) == (4 * 3 * 256, 12)
    assert document["layers"][-1]["precision"] == "int8"
