"""Tensors without negative numbers, whatever the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._graph import clip_bounds, constant, inputs_of, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["is_never_negative"]

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs")
# Operators that give no negative numbers if their first input has none.
_KEEPING = (
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMax", "ReduceMean", "ReduceSum"),
    *("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"),
)
# Operators that give none if all of their inputs have none.
_JOINING = ("Add", "Sum", "Mul", "Max", "Min", "Mean", "Concat")
_MOST_TENSORS = 64  # to look at for one answer, so that a pass over a graph takes time linear in its size


def is_never_negative(value: ir.Value) -> bool:
    """Say whether the operators above a tensor make sure that none of its numbers is negative."""
    pending, visited = [value], {value}
    while pending:
        needed = _never_negative_if(pending.pop())
        if needed is None or len(visited) > _MOST_TENSORS:
            return False
        new = [tensor for tensor in dict.fromkeys(needed) if tensor not in visited]
        visited.update(new)
        pending += new
    return True


def _never_negative_if(value: ir.Value) -> list[ir.Value] | None:
    """Return the tensors that must not be negative for ``value`` not to be; ``None`` if it may be negative anyway."""
    array, node = constant(value), value.producer()
    if array is not None and array.min(initial=0) >= 0:
        return []
    if is_op(node, "Clip") and (bounds := clip_bounds(node)) is not None and min(bounds) >= 0:
        return []
    if is_op(node, *_NEVER_NEGATIVE):
        return []
    if is_op(node, *_KEEPING):
        return inputs_of(node)[:1]
    if is_op(node, *_JOINING):
        return inputs_of(node)
    return None
