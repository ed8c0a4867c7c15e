"""Which tensors have no negative numbers, whatever the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._graph import clip_bounds, constant, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["is_never_negative"]

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs")
# What gives no negative numbers if its first input has none.
_KEEPING = (
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMax", "ReduceMean", "ReduceSum"),
    *("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"),
)
# What gives none if all of its inputs have none.
_JOINING = ("Add", "Sum", "Mul", "Max", "Min", "Mean", "Concat")
_FAR = 64  # tensors to look at for one answer, so that a pass over a graph is linear in its size


def is_never_negative(value: ir.Value) -> bool:
    """Say whether the operators above a tensor make sure that none of its numbers is negative."""
    waiting, seen = [value], {value}
    while waiting:
        one = waiting.pop()
        needed = _never_negative_if(one)
        if needed is None or len(seen) > _FAR:
            return False
        new = [other for other in dict.fromkeys(needed) if other not in seen]
        seen.update(new)
        waiting += new
    return True


def _never_negative_if(value: ir.Value) -> list[ir.Value] | None:
    """Return the tensors that must not be negative for ``value`` not to be; ``None`` if no such tensors are known."""
    array, node = constant(value), value.producer()
    if array is not None:
        return [] if array.min(initial=0) >= 0 else None
    if node is None:
        return None
    if is_op(node, *_NEVER_NEGATIVE):
        return []
    if is_op(node, "Clip"):
        bounds = clip_bounds(node)
        return [] if bounds is not None and min(bounds) >= 0 else None
    if is_op(node, *_KEEPING):
        return [given for given in node.inputs[:1] if given is not None]
    return [given for given in node.inputs if given is not None] if is_op(node, *_JOINING) else None
