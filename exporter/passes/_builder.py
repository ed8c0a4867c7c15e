"""Putting new nodes into a graph, each with the shape and type of its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from rexport.passes._graph import add_initializer, free_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

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
        shape: Sequence[int | ir.SymbolicDim | None],
        dtype: ir.DataType,
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node of the standard operators and return its one result, of that ``shape`` and ``dtype``."""
        free = free_name(self.graph, f"{self.prefix}_{name}")
        node = ir.node(op_type, inputs, attributes, name=free)
        (value,) = node.outputs
        value.name, value.shape, value.type = free, ir.Shape(shape), ir.TensorType(dtype)
        self.graph.insert_before(self.before, node)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return a new initializer."""
        return add_initializer(self.graph, f"{self.prefix}_{name}", array)
