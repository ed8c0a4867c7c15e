"""Slice, in the form of any opset: its ranges are attributes before opset 10, inputs from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._graph import constant, input_at, inputs_of, integers_in, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AxisSlice", "slices_of"]

_TO_THE_END = 2**31 - 1  # or more; it is what exporters write


@dataclass(frozen=True)
class AxisSlice:
    """The elements ``start``, ``start + step`` … of an axis that lie before ``end``."""

    axis: int
    start: int
    end: int
    step: int

    def every(self, size: object) -> int | None:
        """Return ``n`` if the slice takes every ``n``-th element of an axis of that size, from the first to the end."""
        to_the_end = self.end >= _TO_THE_END or (isinstance(size, int) and self.end >= size)
        return self.step if self.start == 0 and self.step > 0 and to_the_end else None


def slices_of(node: ir.Node | None, rank: int) -> tuple[AxisSlice, ...] | None:
    """Return the slices of a tensor of ``rank`` axes by a Slice with constant ranges, ``None`` for other nodes."""
    if not is_op(node, "Slice") or not rank or any(constant(value) is None for value in inputs_of(node)[1:]):
        return None
    starts, ends, axes, steps = (integers_in(input_at(node, index)) for index in range(1, 5))
    if len(node.inputs) == 1:
        starts, ends, axes = (node.attributes.get_ints(name) for name in ("starts", "ends", "axes"))
    if starts is None or ends is None:
        return None
    axes, steps = axes or range(len(starts)), steps or [1] * len(starts)
    if not len(axes) == len(starts) == len(ends) == len(steps):
        return None
    parts = zip(axes, starts, ends, steps, strict=True)
    return tuple(AxisSlice(axis % rank, start, end, step) for axis, start, end, step in parts)
