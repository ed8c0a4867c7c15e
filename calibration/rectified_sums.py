"""The part of a residual branch that passes the ReLU of the sum that it ends in.

    ReLU(a + b) = ReLU(max(a, −b) + b)
    max(a, −b)  = ReLU(a + b) − b

where nothing else reads a: however far a lies below −b, the result is zero. So the range of a that integers have to
represent is that of max(a, −b), which is narrower at its lower end. It is computed the second way, which leaves the
convolution, the sum and the ReLU as one layer for the runtimes; it differs by a rounding of the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._graph import constant, is_op, only_consumer, producer_of

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
        identity = next(value for value in add.inputs if value is not term)
        relu = only_consumer(add.outputs[0])
        assert relu is not None
        difference = ir.node("Sub", [relu.outputs[0], identity])
        (result,) = difference.outputs
        result.name, result.shape, result.type = f"rexport:visible:{term.name}", term.shape, term.type
        copy.graph.insert_after(relu, difference)
        visible[str(term.name)] = str(result.name)
    return copy, visible


def _hidden_term(add: ir.Node) -> ir.Value | None:
    """Return the term of an Add, a convolution's result, of which a ReLU alone sees the sum; ``None`` without one."""
    if not is_op(add, "Add") or not is_op(only_consumer(add.outputs[0]), "Relu"):
        return None
    terms = [value for value in add.inputs if value is not None and value.shape is not None and constant(value) is None]
    if len(terms) < 2 or any(term.shape != add.outputs[0].shape for term in terms):
        return None
    return next((term for term in terms if producer_of(term, "Conv") and only_consumer(term) is add), None)
