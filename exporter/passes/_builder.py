"""Putting new nodes into a graph, each with the shape and type of its result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import add_initializer, free_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Builder"]


@dataclass(frozen=True)
class Builder:
    """Inserts nodes before the node ``before`` of a graph; the names of new nodes and values start with ``prefix``."""

    graph: ir.Graph
    before: ir.Node
    prefix: str

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        shape: Iterable[int | ir.SymbolicDim | None] | None,
        dtype: ir.DataType | None,
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node of the standard operators and return its one result; a ``shape`` may be unknown."""
        free = free_name(self.graph, f"{self.prefix}_{name}")
        node = ir.node(op_type, inputs, attributes, name=free)
        (value,) = node.outputs
        assert dtype is not None
        value.name, value.type = free, ir.TensorType(dtype)
        value.shape = None if shape is None else ir.Shape(shape)
        self.graph.insert_before(self.before, node)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return a new initializer."""
        return add_initializer(self.graph, f"{self.prefix}_{name}", array)

    def sizes(self, sizes: Sequence[int | ir.SymbolicDim | None], *, like: ir.Value) -> ir.Value:
        """Insert nodes that give the ``sizes``, those that are open as ``like`` has them: int64, one per axis."""
        int64 = ir.DataType.INT64
        shape = self.node("Shape", [like], "shape", shape=[len(sizes)], dtype=int64)
        parts = []
        for is_fixed, run in groupby(range(len(sizes)), key=lambda axis: isinstance(sizes[axis], int)):
            axes = list(run)
            first, end = axes[0], axes[-1] + 1
            if is_fixed:
                parts.append(self.constant("known_sizes", np.array(sizes[first:end])))
            else:
                bounds = [self.constant("size_from", np.array([first])), self.constant("size_to", np.array([end]))]
                parts.append(self.node("Slice", [shape, *bounds], "open_sizes", shape=[end - first], dtype=int64))
        return self.node("Concat", parts, "sizes", shape=[len(sizes)], dtype=int64, axis=0)
