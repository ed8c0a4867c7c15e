"""What an INT8 model stores, held against what it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from rexport._errors import VerificationError
from rexport.calibration import calibrate
from rexport.passes._graph import constant, is_op
from rexport.preprocessing import Preprocessing
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, Target, audit, quantize, recover
from tests._graphs import convolution, graph, images, set_array

if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL = graph(
    "a = Conv <pads = [1, 1, 1, 1]> (x, w1) b = Relu (a) c = Conv <pads = [1, 1, 1, 1]> (b, w2) d = MaxPool "
    "<kernel_shape = [2, 2]> (c) e = Conv (d, w3) y = Conv (e, w4)",
    {
        "w1": convolution(8, 3),
        "w2": convolution(8, 8, seed=1),
        "w3": convolution(8, 8, seed=2),
        "w4": convolution(8, 8, seed=3),
    },
)


def _quantized(target: Target) -> tuple[ir.Model, ir.Model]:
    """Return the model, equalized and rounded for what its layers read, and what it was equalized to."""
    table = calibrate(_MODEL, iter([images(8)]))
    recovered = recover(_MODEL, table, target=target, images=lambda: iter([images(8)]), total=8)
    return recovered.equalized.model, quantize(_MODEL, table, target=target, recovered=recovered).model


@pytest.mark.parametrize(
    "target", [X86, X86.with_reduced_range(), ARM, OPENVINO, TENSORRT], ids=lambda target: target.name
)
def test_what_is_stored_right_passes(target: Target) -> None:
    audit(*_quantized(target))


def test_few_small_weights_may_take_up_each_others_rounding() -> None:
    """Of a channel whose scale its bias sets, all weights are a step or two wide."""
    source, quantized = _quantized(X86)
    layer = next(node for node in quantized.graph if is_op(node, "Conv"))
    stored = layer.inputs[1].producer()
    own = next(node for node in source.graph if node.name == layer.name).inputs[1]
    weight, numbers, scales = constant(own).copy(), constant(stored.inputs[0]).copy(), constant(stored.inputs[1])
    few = numbers[0].size
    numbers[0] = np.resize([1, -2, 6, -2, 2, -1, 0, -5], few).reshape(numbers[0].shape)
    weight[0] = np.resize([1.8, -1.6, 0.4, -1.9, 1.3, -1.4, 0.3, 0.9], few).reshape(weight[0].shape) * scales.ravel()[0]
    set_array(stored.inputs[0], numbers)
    set_array(own, weight)
    audit(source, quantized)


def test_pixels_are_taken_for_others_than_they_were_written_as() -> None:
    """Normalised pictures become the pixels that they were, and a mean of zero needs no frame between the two."""
    preprocessing = Preprocessing(size=16, mean=(0, 0, 0), std=(0.25, 0.2, 0.3))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    shown = preprocessing.normalise(pixels)
    table = calibrate(_MODEL, iter([shown]))
    recovered = recover(_MODEL, table, target=X86, images=lambda: iter([shown]), total=8, preprocessing=preprocessing)
    quantized = quantize(_MODEL, table, target=X86, recovered=recovered).model
    first = next(node for node in quantized.graph if node.op_type == "DequantizeLinear" and node.inputs[0].producer())
    assert first.inputs[1] is not first.inputs[0].producer().inputs[1]
    audit(recovered.equalized.model, quantized)


def _integers(model: ir.Model, layer: str) -> ir.Value:
    node = next(node for node in model.graph if node.outputs[0].name == layer)
    return node.inputs[1].producer().inputs[0]


def _one_wrong_weight(model: ir.Model) -> None:
    value = _integers(model, "c")
    integers = value.const_value.numpy().copy()
    largest = np.unravel_index(np.abs(integers.astype(int)).argmax(), integers.shape)
    integers[largest] = -integers[largest]
    set_array(value, integers)


def _weights_of_another_layer(model: ir.Model) -> None:
    set_array(_integers(model, "c"), _integers(model, "e").const_value.numpy())


def _swapped_channels(model: ir.Model) -> None:
    value = _integers(model, "c")
    set_array(value, value.const_value.numpy()[:, ::-1].copy())


def _wrong_scale_of_a_weight(model: ir.Model) -> None:
    node = next(node for node in model.graph if node.outputs[0].name == "c")
    scale = node.inputs[1].producer().inputs[1]
    set_array(scale, scale.const_value.numpy() * np.float32(2))


def _wrong_scale_of_a_tensor(model: ir.Model) -> None:
    """Let the layer after the pooling read the pooled integers with a scale of its own."""
    node = next(node for node in model.graph if node.outputs[0].name == "e").inputs[0].producer()
    scale = node.inputs[1]
    wrong = ir.Value(name="wrong", shape=scale.shape, type=scale.type)
    set_array(wrong, scale.const_value.numpy() * np.float32(1.5))
    model.graph.register_initializer(wrong)
    node.replace_input_with(1, wrong)


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (_one_wrong_weight, "steps off"),
        (_weights_of_another_layer, "steps off"),
        (_swapped_channels, "steps off"),
        (_wrong_scale_of_a_weight, "steps off"),
        (_wrong_scale_of_a_tensor, "another scale than"),
    ],
)
@pytest.mark.parametrize("target", [X86, TENSORRT], ids=lambda target: target.name)
def test_a_planted_fault_is_named(plant: Callable[[ir.Model], None], named: str, target: Target) -> None:
    source, quantized = _quantized(target)
    plant(quantized)
    with pytest.raises(VerificationError, match=named):
        audit(source, quantized)
