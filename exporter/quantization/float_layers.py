"""Layers that stay in float between integers, written so that ONNX Runtime leaves them in float.

A float convolution between a DequantizeLinear and a QuantizeLinear is quantized by ONNX Runtime's optimizer
(``WeightBiasQuantization``), with a single scale for its whole weight: the very layer that should be exact becomes the
coarsest. It does so where the tensor has a single scale. Hence these layers read the integers through their own
DequantizeLinear with the same scale for each channel; and where there is one channel, or the channels are on the first
axis, through s (q − z) in float. So does an AveragePool that stays float because the integer kernel, which ONNX Runtime
uses between integers whenever it can, is wrong (see ``averages``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._builder import Builder
from rexport.passes._graph import (
    add_initializer,
    constant,
    contents_of,
    free_name,
    input_at,
    int_attribute,
    is_op,
    producer_of,
)
from rexport.quantization.layers import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["average_in_float", "dequantize_in_float", "dequantize_per_channel"]

_CHANNELS = 1  # the axis


def dequantize_per_channel(graph: ir.Graph, layers: Iterable[ir.Node]) -> None:
    """Let those of ``layers`` that have a weight read integers with a scale for each channel, all of them equal."""
    written: dict[tuple[ir.Node, int], ir.Value] = {}
    for layer in layers:
        source = _tensor_read_by(layer, *WEIGHTED)
        if source is None or constant(layer.inputs[1]) is None:
            continue  # ONNX Runtime can't quantize a weight that is computed
        channels = _channels_read_by(layer)
        if (source, channels) not in written:
            written[source, channels] = _per_channel(graph, source, channels)
        layer.replace_input_with(0, written[source, channels])


def average_in_float(graph: ir.Graph, layers: Iterable[ir.Node]) -> None:
    """Let those of ``layers`` that are AveragePool read floats, and no DequantizeLinear."""
    for layer in layers:
        if source := _tensor_read_by(layer, "AveragePool"):
            layer.replace_input_with(0, _in_float(graph, source))


def _tensor_read_by(layer: ir.Node, *op_types: str) -> ir.Node | None:
    """Return the DequantizeLinear, with one scale for its whole tensor, that a layer of one of these types reads."""
    source = producer_of(input_at(layer, 0), "DequantizeLinear")
    if source is None or not is_op(layer, *op_types):
        return None
    scale = constant(source.inputs[1])
    return source if scale is not None and scale.size == 1 else None


def _channels_read_by(layer: ir.Node) -> int:
    """Return how many channels a layer reads on axis 1; 1 where that axis has something else."""
    weight = contents_of(layer.inputs[1])
    if is_op(layer, "Gemm"):
        is_plain = int_attribute(layer, "transA", 0) == 0
        return int(weight.shape[int_attribute(layer, "transB", 0)]) if is_plain else 1
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[0])
    return int(weight.shape[1]) * int_attribute(layer, "group", 1)


def _per_channel(graph: ir.Graph, dequantize: ir.Node, channels: int) -> ir.Value:
    """Insert a copy of ``dequantize`` that has a scale for each channel, and return its result."""
    if channels == 1:  # it would have a single scale again
        return _in_float(graph, dequantize)
    old, name = dequantize.outputs[0], free_name(graph, f"{dequantize.outputs[0].name}_per_channel")
    inputs = [dequantize.inputs[0]]
    for value, role in zip(dequantize.inputs[1:], ("scale", "zero_point"), strict=False):
        inputs.append(add_initializer(graph, f"{name}_{role}", np.repeat(contents_of(value).reshape(1), channels)))
    copy = ir.node("DequantizeLinear", inputs, {"axis": _CHANNELS}, name=name)
    (result,) = copy.outputs
    result.name, result.shape, result.type = name, old.shape, old.type
    graph.insert_after(dequantize, copy)
    return result


def _in_float(graph: ir.Graph, dequantize: ir.Node) -> ir.Value:
    """Insert operators that compute the same as ``dequantize``, and that no optimizer fuses; return their result."""
    (old,), integers, dtype = dequantize.outputs, dequantize.inputs[0], ir.DataType.FLOAT
    builder = Builder(graph, before=dequantize, prefix=str(old.name))
    floats = builder.node("Cast", [integers], "float", shape=old.shape, dtype=dtype, to=int(dtype))
    return dequantize_in_float(builder, floats, dequantize, dtype)


def dequantize_in_float(
    builder: Builder, numbers: ir.Value | None, dequantize: ir.Node, dtype: ir.DataType
) -> ir.Value:
    """Insert s (q − z) of q in floats, with the scale s and the zero point z of a DequantizeLinear."""
    shape = dequantize.outputs[0].shape
    zero = builder.constant("zero", contents_of(dequantize.inputs[2]).astype(dtype.numpy()))
    centred = builder.node("Sub", [numbers, zero], "centred", shape=shape, dtype=dtype)
    return builder.node("Mul", [centred, dequantize.inputs[1]], "scaled", shape=shape, dtype=dtype)
