"""ONNX Runtime rounds the weights of float layers between integers, unless it is told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.quantization import ARM, TENSORRT, X86, quantize
from rexport.runtimes.onnxruntime import executed_ops, open_session
from tests._graphs import convolution, graph, images, run
from tests.quantization._tables import pictures, table_of

if TYPE_CHECKING:
    from rexport.quantization import Target

_PAD = "<pads=[1,1,1,1]>"
_WEIGHTS = {"w": convolution(3, 3), "v": convolution(3, 3, seed=1), "u": convolution(3, 3, seed=2)}
_RANGES = {"x": (-4.0, 4.0), "a": (-4.0, 4.0), "b": (-4.0, 4.0), "c": (-4.0, 4.0)}
_BODY = f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, v) c = Conv {_PAD} (b, u) y = Tanh (c)"


def test_it_would_make_integers_of_a_float_layer_by_itself() -> None:
    """The control of the test below; where this fails, ``float_layers`` is no longer needed."""
    constants = {"s": np.float32(4 / 127).reshape(()), "z": np.uint8(128).reshape(())}
    body = f"q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) a = Conv {_PAD} (d, w) "
    body += "p = QuantizeLinear (a, s, z) e = DequantizeLinear (p, s, z) y = Tanh (e)"
    assert executed_ops(to_bytes(graph(body, constants | {"w": _WEIGHTS["w"]})))["QLinearConv"] == 1


@pytest.mark.parametrize("target", [X86, ARM])
def test_a_layer_that_is_kept_in_float_stays_exact(target: Target) -> None:
    model = graph(_BODY, _WEIGHTS)
    result = quantize(model, table_of(model, **_RANGES), target=target, keep_float={"b"}).model
    executed = executed_ops(to_bytes(result), as_on_arm=target is ARM)
    assert (executed["QLinearConv"], executed["Conv"] + executed["FusedConv"]) == (2, 1)
    (reader,) = (node for node in result.graph if node.outputs[0].name == "b")
    dequantize = reader.inputs[0].producer()
    assert dequantize is not None
    assert list(dequantize.inputs[1].shape) == [3]
    assert np.abs(run(result, pictures(2, 16))[0] - run(model, pictures(2, 16))[0]).max() < 0.15


@pytest.mark.parametrize(
    "layer",
    [
        "b = ConvTranspose <strides=[2,2]> (a, v)",
        "b = Conv <group=3, pads=[1,1,1,1]> (a, d)",
    ],
)
def test_every_layer_with_a_weight_is_told_apart(layer: str) -> None:
    weights = _WEIGHTS | {"d": convolution(3, 1)}
    body = f"a = Conv {_PAD} (x, w) {layer} c = Conv {_PAD} (b, u) y = Tanh (c)"
    model = graph(body, {name: weights[name] for name in weights if f"{name})" in body})
    result = quantize(model, table_of(model, **_RANGES), target=X86, keep_float={"b"}).model
    (reader,) = (node for node in result.graph if node.outputs[0].name == "b")
    dequantize = reader.inputs[0].producer()
    assert dequantize is not None
    assert list(dequantize.inputs[1].shape) == [3]
    assert executed_ops(to_bytes(result))["QLinearConv"] == 2


def test_others_are_left_their_one_scale() -> None:
    model = graph(_BODY, _WEIGHTS)
    result = quantize(model, table_of(model, **_RANGES), target=TENSORRT, keep_float={"b"}).model
    scales = [node.inputs[1] for node in result.graph if node.op_type == "QuantizeLinear"]
    assert all(scale is not None and scale.shape is not None and len(scale.shape) == 0 for scale in scales)
    assert not [node for node in result.graph if "per_channel" in str(node.name)]


_LINEAR = "g = GlobalAveragePool (a) f = Flatten (g)"
_HEAD = "c = Gemm <transB=1> (b, u) y = Tanh (c)"


@pytest.mark.parametrize("target", [X86, ARM])
@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (
            f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, v) c = Conv {_PAD} (b, u) y = Tanh (c)",
            {"w": convolution(1, 3), "v": convolution(4, 1), "u": convolution(3, 4)},
        ),
        (
            f"a = Conv {_PAD} (x, w) {_LINEAR} b = Gemm <transB=1> (f, v) {_HEAD}",
            {"w": convolution(1, 3), "v": convolution(5, 1, 1)[:, :, 0, 0], "u": convolution(3, 5, 1)[:, :, 0, 0]},
        ),
        (
            f"a = Conv {_PAD} (x, w) {_LINEAR} t = Transpose (f) b = Gemm <transA=1> (t, v) {_HEAD}",
            {"w": convolution(4, 3), "v": convolution(4, 5, 1)[:, :, 0, 0], "u": convolution(3, 5, 1)[:, :, 0, 0]},
        ),
    ],
    ids=["a single channel", "a single feature", "features on the first axis"],
)
def test_layers_without_an_axis_of_several_channels_stay_exact(
    body: str, weights: dict[str, np.ndarray], target: Target
) -> None:
    model, x = graph(body, weights, outputs="float[N, C] y" if "Gemm" in body else "float[N, C, H, W] y"), images(4)
    result = quantize(model, calibrate(model, [x]), target=target, keep_float={"b"}).model
    executed = executed_ops(to_bytes(result), as_on_arm=target is ARM)
    assert executed["Conv"] + executed["FusedConv"] + executed["Gemm"] == 1
    by_itself = open_session(to_bytes(result), optimize=False).run(None, {"x": x})[0]
    # steps of the last tensor's integers, of which a result that is nearly half-way may be the next
    assert np.abs(run(result, x)[0] - by_itself).max() <= 1.01 * np.ptp(by_itself) / 127
