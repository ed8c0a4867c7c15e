"""From opset 18, the lowest that PyTorch's exporter writes, to 17.

The operators of a residual network that changed in between are the reductions, whose axes were an attribute until 17
and are an input since, and Pad, which may name axes since. ONNX's own version converter has no adapter for Pad.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from rexport.passes._graph import input_at, integers_in, is_op

__all__ = ["lower_to_17"]

_REDUCTIONS = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
}  # fmt: skip


def lower_to_17(model: ir.Model) -> None:
    """Change a model of opset 18 to 17, in place; ONNX's checker will tell if it uses anything newer."""
    for node in model.graph.all_nodes():
        if is_op(node, *_REDUCTIONS):
            _make_axes_an_attribute(node)
    model.opset_imports[""] = 17
    common.RemoveUnusedNodesPass()(model)  # the axes


def _make_axes_an_attribute(node: ir.Node) -> None:
    axes = integers_in(input_at(node, 1))
    if axes is not None:
        node.attributes.add(ir.AttrInt64s("axes", axes))
        node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
