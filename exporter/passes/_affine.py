"""Operators that map each channel by itself, y = a x + c: BatchNormalization, and the arithmetic that some files have.

    x · k  =  k x        x / k  =  (1/k) x        x + k        x − k        k − x  =  −x + k

with one number k for all channels, or one for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.model_file import opset_of
from rexport.passes import _batch_norm
from rexport.passes._batch_norm import Affine
from rexport.passes._graph import constant, contents_of, is_op, shape_in_words, why_not_constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["affine_of", "mapped_by", "may_broadcast", "why_not_affine"]

_OPERANDS = {"Mul": "factor", "Div": "divisor", "Add": "summand", "Sub": "summand"}


def mapped_by(node: ir.Node) -> ir.Value | None:
    """Return the tensor that such an operator maps, or ``None`` if ``node`` is no such operator."""
    if is_op(node, "BatchNormalization"):
        return node.inputs[0]
    if not is_op(node, *_OPERANDS) or len(node.inputs) != 2:
        return None
    computed = [value for value in node.inputs if constant(value) is None]
    if len(computed) != 1 or (node.op_type == "Div" and computed[0] is node.inputs[1]):
        return None
    return computed[0]


def may_broadcast(node: ir.Node) -> bool:
    """Say whether the result of such an operator may have more channels or axes than the tensor that it maps."""
    if is_op(node, "BatchNormalization"):
        return False
    operand = contents_of(_operand(node))
    return operand.size > 1 or operand.ndim > 1


def why_not_affine(node: ir.Node, *, channels: int, rank: int) -> str | None:
    """Return why an operator that :func:`mapped_by` knows is not a constant map of each channel; ``None`` if it is.

    Args:
        node: The operator.
        channels: The channels of the tensor that it maps, on axis 1.
        rank: The number of axes of that tensor.
    """
    if is_op(node, "BatchNormalization"):
        refusal = _batch_norm.why_not_affine(node)
        if refusal is None and len(_batch_norm.affine_of(node).scale) != channels:
            return f"it is of other channels than the {channels} that it reads"
        return refusal
    if node.graph is not None and opset_of(node.graph) < 7:
        return "it broadcasts as opsets before 7 do"
    role, operand = _OPERANDS[node.op_type], _operand(node)
    if refusal := why_not_constant(operand, role):
        return refusal
    array = contents_of(operand)
    if _per_channel(array, channels, rank) is None:
        return f"its {role} has the shape {shape_in_words(array.shape)}, which is not one number per channel"
    if not affine_of(node, channels=channels, rank=rank).is_finite:
        return f"its {role} gives values that are not finite"
    return None


def affine_of(node: ir.Node, *, channels: int, rank: int) -> Affine:
    """Return the map of a node for which :func:`why_not_affine` returns ``None``; computed in float64."""
    if is_op(node, "BatchNormalization"):
        return _batch_norm.affine_of(node)
    operand = _per_channel(contents_of(_operand(node)), channels, rank)
    assert operand is not None
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return Affine(operand, zeros)
    if node.op_type == "Div":
        with np.errstate(all="ignore"):  # a division by zero becomes infinite, which the check reports
            return Affine(ones / operand, zeros)
    if node.op_type == "Add":
        return Affine(ones, operand)
    if _operand(node) is node.inputs[0]:
        return Affine(-ones, operand)
    return Affine(ones, -operand)


def _operand(node: ir.Node) -> ir.Value | None:
    """Return the constant of an addition or a multiplication."""
    return next((value for value in node.inputs if value is not mapped_by(node)), None)


def _per_channel(array: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """Return one float64 number per channel, or ``None`` if ``array`` does not broadcast to that."""
    shape = (*[1] * (rank - array.ndim), *array.shape)
    if len(shape) != rank or shape[1] not in (1, channels) or array.size != shape[1]:
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), channels)
