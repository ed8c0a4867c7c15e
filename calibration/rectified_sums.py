"""What of a residual branch is seen behind the ReLU of the sum that it ends in.

    ReLU(a + b) = ReLU(max(a, −b) + b)
    max(a, −b)  = ReLU(a + b) − b

where a is read by nothing else: however far a lies below −b, zero comes out. So the range of a that integers have to
tell apart is that of max(a, −b), which is narrower at its lower end. It is computed the second way, which leaves the
convolution, the sum and the ReLU to be one layer, as runtimes have them; it differs by a rounding of the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._graph import constant, is_op, only_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["with_visible_terms"]


def with_visible_terms(model: ir.Model) -> tuple[ir.Model, Mapping[str, str]]:
    """Return a copy in which ReLU(a + b) − b is computed too, and its tensors' names by those of the tensors a."""
    copy = model.clone()
    visible: dict[str, str] = {}
    for add in list(copy.graph):
        term = _hidden_term(add)
        if term is None:
            continue
        other = next(value for value in add.inputs if value is not term)
        relu = only_consumer(add.outputs[0])
        assert other is not None
        assert relu is not None
        difference = ir.node("Sub", [relu.outputs[0], other])
        (seen,) = difference.outputs
        seen.name, seen.shape, seen.type = f"rexport:visible:{term.name}", term.shape, term.type
        copy.graph.insert_after(relu, difference)
        visible[str(term.name)] = str(seen.name)
    return copy, visible


def _hidden_term(add: ir.Node) -> ir.Value | None:
    """Return the term of an Add, a convolution's result, of which a ReLU alone sees the sum; ``None`` without one."""
    if not is_op(add, "Add") or not is_op(only_consumer(add.outputs[0]), "Relu"):
        return None
    if any(
        value is None or constant(value) is not None or not _same_shape(value, add.outputs[0]) for value in add.inputs
    ):
        return None
    results = [value for value in add.inputs if value is not None and is_op(value.producer(), "Conv")]
    return next((value for value in results if only_consumer(value) is add), None)


def _same_shape(value: ir.Value, other: ir.Value) -> bool:
    return value.shape is not None and value.shape == other.shape
