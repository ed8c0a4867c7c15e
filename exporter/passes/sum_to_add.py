"""A Sum is additions, which have integer kernels and run as one with a convolution:  sum(x, y, z)  =  (x + y) + z."""

from __future__ import annotations

import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._base import NodePass
from rexport.passes._graph import free_name, graph_of, is_op, replace_node

__all__ = ["SumToAdd"]

_BROADCASTS_FROM = 8  # Add does from opset 7 on


class SumToAdd(NodePass):
    """Rewrites a Sum of several tensors as Add."""

    summary = "turns Sum into Add"

    def matches(self, node: ir.Node) -> bool:
        """Match a Sum of at least two tensors; one of a single tensor is a no-op."""
        return is_op(node, "Sum") and len(node.inputs) > 1 and opset_of(graph_of(node)) >= _BROADCASTS_FROM

    def rewrite(self, match: ir.Node) -> None:
        """Add one tensor after the other."""
        result, graph = match.outputs[0], graph_of(match)
        total, *terms, last = match.inputs
        for term in terms:
            addition = ir.node("Add", [total, term], name=free_name(graph, f"{result.name}_sum"))
            (total_and_term,) = addition.outputs
            total_and_term.name, total_and_term.type = addition.name, result.type
            graph.insert_before(match, addition)
            total = total_and_term
        replace_node(match, "Add", [total, last])
