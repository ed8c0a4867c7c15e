"""Watching tensors from inside the graph, so that only few numbers leave the runtime.

A tensor of shape ``(N, C, ...)`` is flattened to ``(N, C, P)``. Its outputs are the minimum, the maximum and the sum
over P, each of shape ``(N, C)``; the shape; and a sample of each image's values: every s-th row, whole, where a row
lies along the last axis. s has no factor in common with the number of rows, so the sample takes its share of every
channel, row and column. The minimum of a ReLU's result is not searched but counts as zero: its integers begin at zero
in any case.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._onnx_proto import name_nodes
from rexport.model_file import default_opset
from rexport.passes._graph import add_initializer, is_rectifier, remembered_names, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["OUTPUTS", "add_probes", "stride_for"]

SAMPLED = 2**14  # values of an image, at most, but for a single longer row
_END = np.iinfo(np.int64).max
OUTPUTS = 5  # of each watched tensor: minimum, maximum and sum, the shape (N, C, P), the sample
_AXES_AS_INPUT_FROM = 18  # ReduceMin and ReduceMax; ReduceSum since 13


def stride_for(rows: int, length: int) -> int:
    """Return the smallest stride that takes 2¹⁴ values at most of ``rows`` and has no factor in common with them."""
    stride = max(1, -(-rows // max(1, SAMPLED // length)))
    while math.gcd(stride, rows) > 1:
        stride += 1
    return stride


def add_probes(model: ir.Model, watched: Sequence[str]) -> ir.Model:
    """Return a copy whose last outputs are the probes of each watched tensor, in turn.

    The operators stand right behind the tensor that they read, so that no tensor has to live longer than before.
    """
    copy = model.clone()
    name_nodes(copy)  # ONNX Runtime refuses two of one name
    values = {str(v.name): v for v in [*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs)]}
    prober = _Prober(copy.graph, default_opset(copy))
    with remembered_names(copy.graph):
        for name in watched:
            value = values[name]
            nodes = prober.probe(value)
            producer = value.producer()
            if producer is not None:
                copy.graph.insert_after(producer, nodes)
            elif len(copy.graph):
                copy.graph.insert_before(copy.graph[0], nodes)
            else:  # all nodes were unused and have been removed
                copy.graph.extend(nodes)
    return copy


class _Prober:
    """Makes the operators, and shares the constants among them."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._constants: dict[tuple[str, bytes], ir.Value] = {}
        self._nodes: list[ir.Node] = []
        self._count = 0

    def probe(self, value: ir.Value) -> list[ir.Node]:
        """Return the nodes that probe a tensor, in order; their results become outputs of the graph."""
        self._nodes = []
        flat = self._node("Reshape", value, self._integers(*_as_three_axes(value)))
        highs, sums = (self._reduction(op_type, flat) for op_type in ("ReduceMax", "ReduceSum"))
        if is_rectifier(value.producer()):
            lows = self._node("Mul", highs, self._constant(np.array(0, np.float32)))
        else:
            lows = self._reduction("ReduceMin", flat)
        shape = self._node("Shape", flat, dtype=ir.DataType.INT64)
        self._graph.outputs.extend([lows, highs, sums, shape, self._sample(flat, _sizes_of(value))])
        return self._nodes

    def _reduction(self, op_type: str, flat: ir.Value) -> ir.Value:
        if op_type == "ReduceSum" or self._opset >= _AXES_AS_INPUT_FROM:
            return self._node(op_type, flat, self._integers(2), attributes={"keepdims": 0})
        return self._node(op_type, flat, attributes={"keepdims": 0, "axes": [2]})

    def _sample(self, flat: ir.Value, sizes: Sequence[int] | None) -> ir.Value:
        if sizes is None:
            return self._sample_of_any_size(flat)
        count, length = math.prod(sizes[:-1]), sizes[-1]
        stride = stride_for(count, length)
        if stride == 1:
            return self._node("Reshape", flat, self._integers(0, -1))
        # whole rows, and Gather rather than Slice: ONNX Runtime steps through single values at 5 ns each
        rows = self._node("Reshape", flat, self._integers(0, count, length))
        return self._node("Gather", rows, self._integers(*range(0, count, stride)), attributes={"axis": 1})

    def _sample_of_any_size(self, flat: ir.Value) -> ir.Value:
        """Take every s-th value: without knowing where rows end."""
        images = self._node("Reshape", flat, self._integers(0, -1))
        begin, end, axis = (self._integers(number) for number in (0, _END, 1))
        return self._node("Slice", images, begin, end, axis, self._computed_stride(images))

    def _computed_stride(self, images: ir.Value) -> ir.Value:
        """Return an odd stride for images whose size is known only when they run: of large ones it takes 2¹⁴ to 2¹⁵."""
        integer = ir.DataType.INT64
        shape = self._node("Shape", images, dtype=integer)
        values = self._node("Gather", shape, self._integers(1), dtype=integer)
        doubled = self._node("Div", values, self._integers(2 * SAMPLED), dtype=integer)
        even = self._node("Mul", doubled, self._integers(2), dtype=integer)
        return self._node("Add", even, self._integers(1), dtype=integer)

    def _node(
        self,
        op_type: str,
        *inputs: ir.Value,
        attributes: Mapping[str, int | list[int]] | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes or {})
        output = node.outputs[0]
        output.name, output.type = f"rexport:{op_type}:{self._count}", ir.TensorType(dtype)
        self._count += 1
        self._nodes.append(node)
        return output

    def _integers(self, *numbers: int) -> ir.Value:
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, array: np.ndarray) -> ir.Value:
        key = (array.dtype.str, array.tobytes())
        if key not in self._constants:
            self._constants[key] = add_initializer(self._graph, "rexport:constant", array)
        return self._constants[key]


def _as_three_axes(value: ir.Value) -> tuple[int, int, int]:
    """Return Reshape's operand for shape ``(N, C, P)``; C is 1 unless it is fixed, so that it never changes."""
    if value.shape is None or len(value.shape) < 2:
        return (1, 1, -1)
    return (0, 0, -1) if isinstance(value.shape[1], int) else (0, 1, -1)


def _sizes_of(value: ir.Value) -> tuple[int, ...] | None:
    """Return the sizes of the axes behind axis 0, if there are any and all are fixed."""
    sizes = shape_of(value)[1:]
    fixed = tuple(size for size in sizes if isinstance(size, int))
    return fixed if fixed and len(fixed) == len(sizes) else None
