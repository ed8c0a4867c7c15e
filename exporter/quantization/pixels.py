"""Raw images for a target that computes with symmetric integers alone: pixels become floats where they enter.

    uint8 → Transpose → Concat → DequantizeLinear     →     uint8 → Cast → Transpose → Concat → Sub z → Mul s

TensorRT refuses zero points, and does nothing with uint8 but cast it. Where scales are float16, so are the floats: the
integers up to 255 and their differences are exact in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import UsageError
from rexport.passes._builder import Builder
from rexport.passes._graph import constant, is_op, name_of, replace_initializer, take_over
from rexport.quantization.float_layers import dequantize_in_float

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["compute_pixels"]

_UINT8 = ir.DataType.UINT8
_KEEP_NUMBERS = ("Transpose", "Concat", "Slice", "MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def compute_pixels(graph: ir.Graph, dequantize_nodes: Collection[ir.Node]) -> None:
    """Replace the ``dequantize_nodes``, which read pixels, by float arithmetic.

    Raises:
        UsageError: The graph does more to the pixels than to move them.
    """
    halves = any(node.outputs[0].dtype == ir.DataType.FLOAT16 for node in dequantize_nodes)
    dtype = ir.DataType.FLOAT16 if halves else ir.DataType.FLOAT
    pixels = {value for value in graph.inputs if value.dtype == _UINT8}
    for image in pixels:
        _cast(graph, image, dtype)
    for node in list(graph):
        if is_op(node, "ConstantOfShape") and node.outputs[0].dtype == _UINT8:
            fill = node.attributes["value"].as_tensor().numpy()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(fill.astype(dtype.numpy())))
            node.outputs[0].type = ir.TensorType(dtype)
        elif node in dequantize_nodes:
            _compute(graph, node, dtype)
        elif node.outputs[0].dtype == _UINT8:
            if not is_op(node, *_KEEP_NUMBERS):
                raise UsageError(
                    f"The target takes int8 only, and {name_of(node)} ({node.op_type}) computes with uint8 "
                    "pixels; export the network without --resize-in-graph for it."
                )
            for index, value in enumerate(node.inputs):
                array = constant(value)
                if array is not None and array.dtype == np.uint8:
                    replace_initializer(node, index, array.astype(dtype.numpy()), name=f"{name_of(node)}_constant")
            node.outputs[0].type = ir.TensorType(dtype)


def _cast(graph: ir.Graph, image: ir.Value, dtype: ir.DataType) -> None:
    readers = [(usage.node, usage.idx) for usage in image.uses() if not is_op(usage.node, "Shape")]
    builder = Builder(graph, before=graph[0], prefix=str(image.name))
    floats = builder.node("Cast", [image], "float", shape=image.shape, dtype=dtype, to=int(dtype))
    for reader, index in readers:
        reader.replace_input_with(index, floats)


def _compute(graph: ir.Graph, dequantize: ir.Node, dtype: ir.DataType) -> None:
    """Put s (q − z) in the place of a DequantizeLinear."""
    result = dequantize.outputs[0]
    builder = Builder(graph, before=dequantize, prefix=str(result.name))
    take_over(result, dequantize_in_float(builder, dequantize.inputs[0], dequantize, dtype))
