"""Layers that stay in float between integers, told to ONNX Runtime in a way that it believes.

Of a convolution in float that reads a DequantizeLinear and is read by a QuantizeLinear, ONNX Runtime's optimizer
(``WeightBiasQuantization``) makes one of integers by itself, with a single scale for all of its weight: the very layer
that is to be exact becomes the coarsest. It does so where the tensor has a single scale. Hence these layers read the
integers through a DequantizeLinear of their own, which says the same scale for each channel; and where there is one
channel, or the first axis has them, through s (q − z) in float. So does an AveragePool that stays float because the
integer kernel, which ONNX Runtime takes between integers whenever it can, is wrong (see ``averages``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._builder import Builder
from rexport.passes._graph import add_initializer, constant, free_name, int_attribute, is_op
from rexport.quantization.layers import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["average_in_float", "dequantize_in_float", "dequantize_per_channel"]

_CHANNELS = 1  # the axis


def dequantize_per_channel(graph: ir.Graph, layers: Iterable[ir.Node]) -> None:
    """Let those of ``layers`` that have a weight read integers with a scale for each channel, all the same."""
    written: dict[tuple[ir.Node, int], ir.Value] = {}
    for layer in layers:
        source = layer.inputs[0].producer() if is_op(layer, *WEIGHTED) and layer.inputs[0] is not None else None
        if source is None or constant(layer.inputs[1]) is None or not _has_one_scale(source):
            continue  # a weight that is computed could not be rounded
        channels = _channels_read_by(layer)
        if (source, channels) not in written:
            several = channels > 1
            written[source, channels] = _per_channel(graph, source, channels) if several else _in_float(graph, source)
        layer.replace_input_with(0, written[source, channels])


def average_in_float(graph: ir.Graph, layers: Iterable[ir.Node]) -> None:
    """Let those of ``layers`` that are AveragePool read floats, and no DequantizeLinear."""
    for layer in layers:
        source = layer.inputs[0].producer() if is_op(layer, "AveragePool") and layer.inputs[0] is not None else None
        if source is not None and _has_one_scale(source):
            layer.replace_input_with(0, _in_float(graph, source))


def _has_one_scale(node: ir.Node) -> bool:
    scale = constant(node.inputs[1]) if is_op(node, "DequantizeLinear") else None
    return scale is not None and scale.size == 1


def _channels_read_by(layer: ir.Node) -> int:
    """Return how many channels a layer reads on axis 1; 1 where that axis has something else."""
    weight = constant(layer.inputs[1])
    assert weight is not None
    if is_op(layer, "Gemm"):
        is_plain = int_attribute(layer, "transA", 0) == 0
        return int(weight.shape[int_attribute(layer, "transB", 0)]) if is_plain else 1
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[0])
    return int(weight.shape[1]) * int_attribute(layer, "group", 1)


def _per_channel(graph: ir.Graph, dequantize: ir.Node, channels: int) -> ir.Value:
    """Insert a copy of ``dequantize`` that has a scale for each channel, and return its result."""
    old, name = dequantize.outputs[0], free_name(graph, f"{dequantize.outputs[0].name}_per_channel")
    inputs = [dequantize.inputs[0]]
    for value, role in zip(dequantize.inputs[1:], ("scale", "zero_point"), strict=False):
        array = constant(value)
        assert array is not None
        inputs.append(add_initializer(graph, f"{name}_{role}", np.repeat(array.reshape(1), channels)))
    copy = ir.node("DequantizeLinear", inputs, {"axis": _CHANNELS}, name=name)
    (result,) = copy.outputs
    result.name, result.shape, result.type = name, old.shape, old.type
    graph.insert_after(dequantize, copy)
    return result


def _in_float(graph: ir.Graph, dequantize: ir.Node) -> ir.Value:
    """Insert what computes as ``dequantize`` does, in operators that nothing is known of, and return its result."""
    (old,), integers, dtype = dequantize.outputs, dequantize.inputs[0], ir.DataType.FLOAT
    builder = Builder(graph, before=dequantize, prefix=str(old.name))
    shape = None if old.shape is None else list(old.shape)
    floats = builder.node("Cast", [integers], "float", shape=shape, dtype=dtype, to=int(dtype))
    return dequantize_in_float(builder, floats, dequantize, dtype)


def dequantize_in_float(
    builder: Builder, numbers: ir.Value | None, dequantize: ir.Node, dtype: ir.DataType
) -> ir.Value:
    """Insert s (q − z) with the scale s and the zero point z of a DequantizeLinear, of q in floats."""
    zero, scale = constant(dequantize.inputs[2]), dequantize.inputs[1]
    assert zero is not None
    old = dequantize.outputs[0].shape
    shape = None if old is None else list(old)
    stored = builder.constant("zero", zero.astype(dtype.numpy()))
    centred = builder.node("Sub", [numbers, stored], "centred", shape=shape, dtype=dtype)
    return builder.node("Mul", [centred, scale], "scaled", shape=shape, dtype=dtype)
