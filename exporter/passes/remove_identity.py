"""Identity, and Dropout at inference, hand their input on unchanged: they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.model_file import opset_of
from rexport.passes._base import RewritePass
from rexport.passes._graph import bypass, constant, int_attribute, is_op, why_not_bypassed

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RemoveIdentity"]


class RemoveIdentity(RewritePass["ir.Node"]):
    """Removes Identity and Dropout nodes."""

    summary = "Identity and Dropout go"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match every Identity and Dropout."""
        return node if is_op(node, "Identity", "Dropout") else None

    def check(self, match: ir.Node) -> str | None:
        """Allow what really does nothing and whose ends are not both the model's own."""
        if match.op_type == "Dropout":
            training = match.inputs[2] if len(match.inputs) > 2 else None
            if training is not None:
                mode = constant(training)
                if mode is None or bool(mode):
                    return "it is a Dropout in training mode"
            if match.graph is not None and opset_of(match.graph) < 7 and not int_attribute(match, "is_test", 0):
                return "it is a Dropout in the training mode of opsets before 7"
            if any(len(mask.uses()) or mask.is_graph_output() for mask in match.outputs[1:]):
                return "the mask of the Dropout is used"
        return why_not_bypassed(match)

    def rewrite(self, match: ir.Node) -> None:
        """Let its readers read its input."""
        bypass(match)
