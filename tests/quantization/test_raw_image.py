"""Raw images are integers already, and stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from rexport._errors import DataError, UsageError
from rexport.calibration import calibrate, observed_tensors
from rexport.model_file import Metadata, to_bytes
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing, Takes
from rexport.quantization import ARM, TENSORRT, X86, quantize, require_float
from rexport.quantization.placement import place
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, run, vector
from tests.quantization._tables import exported, sqnr_db, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREPROCESSING = Preprocessing(size=32)
_PAD = "<pads=[1,1,1,1]>"
_RAW = "uint8[N, 3, 16, 16] x"  # channels first, as what comes behind the Transpose
_INTEGERS = {"s": np.float32(1 / 255), "z": np.uint8(114)}


def _pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


_ENSEMBLE = pytest.param("cifar_resnet8+cifar_plain8", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["cifar_resnet8", "cifar_preact_resnet8", _ENSEMBLE])
def plain(request: pytest.FixtureRequest) -> ir.Model:
    return exported(request.param)


def _front(model: ir.Model) -> list[str]:
    """Return the operators between the pixels and the tensor that the convolutions read, in order."""
    (image,) = model.graph.inputs
    found, value = [], image
    while not any(node.op_type == "Conv" for node in value.consumers()):
        node = next(node for node in value.consumers() if node.op_type != "Shape")
        found.append(node.op_type)
        value = node.outputs[0]
    return found


def test_the_pixels_are_the_quantized_tensor(plain: ir.Model) -> None:
    raw = with_raw_images(plain, _PREPROCESSING)
    table = calibrate(raw, [_pixels(16)])
    assert not [name for name in table.tensors if name.startswith("images")]
    result = quantize(raw, table, target=X86)
    assert _front(raw) == _front(result.model) == ["Transpose", "Concat", "DequantizeLinear"]
    of_plain = quantize(plain, calibrate(plain, [_PREPROCESSING.normalise(_pixels(16))]), target=X86)
    raw_ops, plain_ops = executed_ops(to_bytes(result.model)), executed_ops(to_bytes(of_plain.model))
    assert not raw_ops["Conv"]
    assert raw_ops["QLinearConv"] == plain_ops["QLinearConv"]
    assert (raw_ops["QuantizeLinear"], raw_ops["DequantizeLinear"]) == (
        plain_ops["QuantizeLinear"] - 1,
        plain_ops["DequantizeLinear"],
    )
    assert [(layer.name, layer.precision) for layer in result.layers] == [
        (layer.name, layer.precision) for layer in of_plain.layers
    ]
    stated = Metadata.of(result.model).preprocessing
    assert stated is not None
    assert stated.takes is Takes.PIXELS


def test_it_is_no_worse_than_normalised_images(plain: ir.Model) -> None:
    pixels = _pixels(16)
    normal = _PREPROCESSING.normalise(pixels)
    (exact,) = run(plain, normal)
    errors = []
    for model, images in ((plain, normal), (with_raw_images(plain, _PREPROCESSING), pixels)):
        quantized = quantize(model, calibrate(model, [images]), target=X86).model
        errors.append(np.square(run(quantized, images)[0] - exact).mean())
    # One picture is quantized by its own pixels and the other by its range, which cost about the same; of networks that
    # are not trained, whose logits are much alike, only the scale can be checked.
    assert errors[1] < 2 * errors[0] + 1e-3 * np.square(exact).mean()


def test_a_scale_that_is_ignored_would_be_seen(plain: ir.Model) -> None:
    raw = with_raw_images(plain, _PREPROCESSING)
    quantized = quantize(raw, calibrate(raw, [_pixels(16)]), target=X86).model
    (before,) = run(quantized, _pixels(4))
    scale = quantized.graph.initializers["images_scale"]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(2), name=scale.name)
    assert np.abs(run(quantized, _pixels(4))[0] - before).max() > 0.1 * np.abs(before).max()


def test_raw_images_do_not_make_a_model_quantized(plain: ir.Model) -> None:
    require_float(with_raw_images(plain, _PREPROCESSING))


# rule by rule


def _graph(body: str, more: Mapping[str, np.ndarray] | None = None, **options: str) -> ir.Model:
    weights = {"w": convolution(3, 3), "b": vector(3), **_INTEGERS, **(more or {})}
    return graph(body, weights, **({"inputs": _RAW} | options))


def test_the_bias_has_the_scale_of_pixels_times_weights() -> None:
    model = _graph(f"d = DequantizeLinear (x, s, z) a = Conv {_PAD} (d, w, b) r = Relu (a) y = Sigmoid (r)")
    assert observed_tensors(model) == ("r", "y")
    placement = place(model)
    assert (set(placement.tensors), set(placement.dequantized)) == ({"d", "r"}, {"d"})
    assert {layer.node.op_type for layer in placement.layers} == {"Conv", "Sigmoid"}
    result = quantize(model, table_of(model, r=(0.0, 5.1)), target=X86).model
    assert sorted(node.op_type for node in result.graph) == sorted(
        [*["DequantizeLinear"] * 4, "QuantizeLinear", "Conv", "Relu", "Sigmoid"]
    )
    stored = [value.const_value.numpy() for value in result.graph.initializers.values()]
    (bias,) = (array for array in stored if array.dtype == np.int32 and array.any())
    products = np.float64(np.float32(1 / 255)) * (np.abs(convolution(3, 3)).reshape(3, -1).max(axis=1) / 127)
    np.testing.assert_allclose(bias * products, vector(3), atol=products.max())
    assert executed_ops(to_bytes(result))["QLinearConv"] == 1


def test_pixels_that_were_moved_are_moved_as_they_are() -> None:
    body = (
        "d = DequantizeLinear (x, s, z) m = MaxPool <kernel_shape=[2,2], strides=[2,2]> (d) "
        f"a = Conv {_PAD} (m, w) y = Sigmoid (a)"
    )
    model = _graph(body)
    result = quantize(model, table_of(model, a=(-3.0, 3.0)), target=X86).model
    assert executed_ops(to_bytes(result))["QLinearConv"] == 1
    pool = next(node for node in result.graph if node.op_type == "MaxPool")
    assert pool.inputs[0] is result.graph.inputs[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    assert np.abs(run(result, pixels)[0] - run(model, pixels)[0]).max() < 0.02


def test_a_scale_per_channel_is_no_tensor_of_ours() -> None:
    per_channel = {"s": np.full(3, 1 / 255, np.float32), "z": np.full(3, 9, np.uint8)}
    model = _graph(f"d = DequantizeLinear <axis=1> (x, s, z) a = Conv {_PAD} (d, w) y = Sigmoid (a)", per_channel)
    assert not place(model).dequantized
    with pytest.raises(DataError, match="no statistics of the tensor 'd'"):
        quantize(model, table_of(model, a=(-3.0, 3.0)), target=X86)


def test_the_same_numbers_as_int8(plain: ir.Model) -> None:
    """Every pixel is one of int8 with another zero point, so nothing changes but the type."""
    raw = with_raw_images(plain, _PREPROCESSING)
    table, pixels = calibrate(raw, [_pixels(8)]), _pixels(4)
    results = [quantize(raw, table, target=target).model for target in (X86, ARM)]
    assert executed_ops(to_bytes(results[1]), as_on_arm=True)["Conv"] == 0
    # the scales are equal, so what differs is the order in which float32 sums are added up
    np.testing.assert_allclose(*(run(model, pixels)[0] for model in results), atol=1e-4)


def test_integers_without_a_zero_point_are_computed_from_the_pixels(plain: ir.Model) -> None:
    raw = with_raw_images(plain, _PREPROCESSING)
    pixels = _pixels(16)
    result = quantize(raw, calibrate(raw, [pixels]), target=TENSORRT)
    nodes = [node.op_type for node in result.model.graph]
    assert nodes[0] == "Cast"
    assert {"Sub", "Mul"} <= set(nodes)
    zeros = [node.inputs[2] for node in result.model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {str(zero.dtype) for zero in zeros if zero is not None} == {"INT8"}
    (exact,), (actual,) = run(raw, pixels), run(result.model, pixels)
    assert sqnr_db(exact, actual) > 20


def test_pixels_that_are_computed_with_can_not_be_floats() -> None:
    body = f"c = Clip (x) d = DequantizeLinear (c, s, z) a = Conv {_PAD} (d, w) y = Sigmoid (a)"
    model = _graph(body)
    with pytest.raises(UsageError, match=r"takes int8 only, and .* \(Clip\) computes with uint8 pixels"):
        quantize(model, table_of(model, a=(-3.0, 3.0)), target=TENSORRT)
