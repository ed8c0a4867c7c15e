"""Putting new nodes into a graph, each with the shape and type of its result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import add_initializer, free_name

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        shape: Sequence[int | ir.SymbolicDim | None] | None,
        dtype: ir.DataType,
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node of the standard operators and return its one result; a ``shape`` may be unknown."""
        free = free_name(self.graph, f"{self.prefix}_{name}")
        node = ir.node(op_type, inputs, attributes, name=free)
        (value,) = node.outputs
        value.name, value.type = free, ir.TensorType(dtype)
        value.shape = None if shape is None else ir.Shape(shape)
        self.graph.insert_before(self.before, node)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return a new initializer."""
        return add_initializer(self.graph, f"{self.prefix}_{name}", array)

    def sizes(self, known: Sequence[int | None], of: ir.Value) -> ir.Value:
        """Insert what gives ``known`` sizes, and where one is ``None`` that ``of`` a tensor: int64, one per axis."""
        int64 = ir.DataType.INT64
        whole = self.node("Shape", [of], "shape", shape=[len(known)], dtype=int64)
        parts = []
        for is_open, run in groupby(range(len(known)), key=lambda axis: known[axis] is None):
            axes = list(run)
            first, end = axes[0], axes[-1] + 1
            if is_open:
                bounds = [self.constant("size_from", np.array([first])), self.constant("size_to", np.array([end]))]
                parts.append(self.node("Slice", [whole, *bounds], "open_sizes", shape=[end - first], dtype=int64))
            else:
                parts.append(self.constant("known_sizes", np.array(known[first:end])))
        return self.node("Concat", parts, "sizes", shape=[len(known)], dtype=int64, axis=0)
