"""Layers that stay in float between integers, told to ONNX Runtime in a way that it believes.

Of a convolution in float that reads a DequantizeLinear and is read by a QuantizeLinear, ONNX Runtime's optimizer
(``WeightBiasQuantization``) makes one of integers by itself, with a single scale for all of its weight: the very layer
that is to be exact becomes the coarsest. It does so where the tensor has a scale without a dimension. Hence these
layers read the integers through a DequantizeLinear of their own, which says the same scale for each channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import add_initializer, constant, free_name, int_attribute, is_op
from rexport.quantization.layers import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["dequantize_per_channel"]

_CHANNELS = 1  # the axis


def dequantize_per_channel(graph: ir.Graph, layers: Iterable[ir.Node]) -> None:
    """Let those of ``layers`` that have a weight read integers with a scale for each channel, all the same."""
    written: dict[ir.Node, ir.Value] = {}
    for layer in layers:
        source = layer.inputs[0].producer() if is_op(layer, *WEIGHTED) and layer.inputs[0] is not None else None
        channels = _channels_read_by(layer) if source is not None else None
        if source is None or channels is None or not _has_one_scale(source):
            continue
        if source not in written:
            written[source] = _per_channel(graph, source, channels)
        layer.replace_input_with(0, written[source])


def _has_one_scale(node: ir.Node) -> bool:
    scale = constant(node.inputs[1]) if is_op(node, "DequantizeLinear") else None
    return scale is not None and scale.size == 1


def _channels_read_by(layer: ir.Node) -> int | None:
    weight = constant(layer.inputs[1])
    if weight is None:  # nothing that could be rounded
        return None
    if is_op(layer, "Gemm"):
        is_plain = int_attribute(layer, "transA", 0) == 0
        return int(weight.shape[int_attribute(layer, "transB", 0)]) if is_plain else None
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
