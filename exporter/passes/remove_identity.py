"""Identity, and Dropout at inference, pass their input on unchanged: they are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.model_file import opset_of
from rexport.passes._base import BypassPass
from rexport.passes._graph import constant, input_at, int_attribute, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RemoveIdentity"]


class RemoveIdentity(BypassPass):
    """Removes Identity and Dropout nodes."""

    summary = "removes Identity and Dropout"

    def matches(self, node: ir.Node) -> bool:
        """Match every Identity and Dropout."""
        return is_op(node, "Identity", "Dropout")

    def check(self, match: ir.Node) -> str | None:
        """Allow a node that does nothing, unless it connects an input of the model to an output."""
        if match.op_type == "Dropout":
            training_mode = input_at(match, 2)
            mode = constant(training_mode)
            if training_mode is not None and (mode is None or bool(mode)):
                return "it is a Dropout in training mode"
            if match.graph is not None and opset_of(match.graph) < 7 and not int_attribute(match, "is_test", 0):
                return "it is a Dropout in the training mode of opsets before 7"
            if any(len(mask.uses()) or mask.is_graph_output() for mask in match.outputs[1:]):
                return "the mask of the Dropout is used"
        return super().check(match)
