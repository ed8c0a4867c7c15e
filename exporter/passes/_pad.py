"""Pad, in the form of any opset: its widths are attributes before opset 11, inputs from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._graph import add_initializer, constant, free_name, why_not_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Padding", "added_pads", "new_pad", "padding_of", "rank_of", "why_not_around", "why_not_fixed"]

_INPUTS_FROM = 11


@dataclass(frozen=True)
class Padding:
    """How many elements of ``value`` stand ``before`` and ``after`` a tensor, on each axis."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0

    @property
    def axes(self) -> set[int]:
        """The axes that it changes."""
        return {axis for axis, widths in enumerate(zip(self.before, self.after, strict=True)) if any(widths)}


def why_not_fixed(pad: ir.Node, rank: int) -> str | None:
    """Return why what a Pad node adds to a tensor of ``rank`` axes is not a known number of times one number."""
    mode = pad.attributes.get_string("mode", "constant")
    if mode != "constant":
        return f"it pads in {mode} mode and not with a constant"
    for value, what in zip(pad.inputs[1:], ("widths", "value", "axes"), strict=False):
        why = why_not_constant(value, what) if value is not None else None
        if why is not None:
            return why
    widths, axes = _widths(pad), constant(pad.inputs[3]) if len(pad.inputs) > 3 else None
    if widths is None or len(widths) != 2 * (rank if axes is None else len(axes)):
        return "its widths are not two for each axis"
    return None


def rank_of(pad: ir.Node) -> int | None:
    """Return how many axes the tensor has that a Pad node pads, if that is known: by its shape or by the widths."""
    for value in (*pad.inputs[:1], pad.outputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        return None
    widths = _widths(pad)
    return None if widths is None else len(widths) // 2


def padding_of(pad: ir.Node, rank: int) -> Padding:
    """Return what a Pad node that :func:`why_not_fixed` has nothing against adds to a tensor of ``rank`` axes."""
    both = _widths(pad) or []
    value, axes = (constant(pad.inputs[i]) if i < len(pad.inputs) else None for i in (2, 3))
    number = pad.attributes.get_float("value", 0.0) if value is None else float(value.item())
    given = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for axis, low, high in zip(given, both[: len(both) // 2], both[len(both) // 2 :], strict=True):
        before[axis], after[axis] = low, high
    return Padding(tuple(before), tuple(after), number)


def why_not_around(padding: Padding) -> str | None:
    """Return why a padding does not put something around a picture, and does nothing else; ``None`` if it does."""
    if padding.axes & {0, 1}:
        return "it pads the batch or the channels, and not the picture alone"
    return "it cuts the picture (its widths are negative)" if min(*padding.before, *padding.after) < 0 else None


def added_pads(node: ir.Node, padding: Padding) -> list[int]:
    """Return the ``pads`` of a convolution or a pooling once a padding of its picture is one of its own."""
    around = (*padding.before[2:], *padding.after[2:])
    own = node.attributes.get_ints("pads", []) or [0] * len(around)
    return [width + more for width, more in zip(own, around, strict=True)]


def new_pad(graph: ir.Graph, source: ir.Value, padding: Padding, dtype: np.dtype[Any], *, name: str) -> ir.Node:
    """Return a Pad node that reads ``source``, of ``dtype``, under a free name; it is not in the graph yet."""
    widths = [*padding.before, *padding.after]
    if opset_of(graph) < _INPUTS_FROM:
        node = ir.node("Pad", [source], {"mode": "constant", "pads": widths, "value": float(padding.value)})
    else:
        constants = (np.array(widths, np.int64), np.array(padding.value, dtype))
        inputs = [add_initializer(graph, f"{name}.{w}", a) for w, a in zip(("pads", "value"), constants, strict=True)]
        node = ir.node("Pad", [source, *inputs], {"mode": "constant"})
    (result,) = node.outputs
    node.name = result.name = free_name(graph, name)
    result.type = source.type
    if source.shape is not None:
        result.shape = ir.Shape(_padded(source.shape, padding))
    return node


def _widths(pad: ir.Node) -> list[int] | None:
    if len(pad.inputs) == 1:
        return list(pad.attributes.get_ints("pads", []))
    array = constant(pad.inputs[1])
    return None if array is None else [int(width) for width in array.reshape(-1)]


def _padded(shape: ir.Shape, padding: Padding) -> Sequence[int | ir.SymbolicDim | None]:
    widths = zip(shape, padding.before, padding.after, strict=True)
    return [
        size + low + high if isinstance(size, int) else (None if low or high else size) for size, low, high in widths
    ]
