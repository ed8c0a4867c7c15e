"""Pad, in the form of any opset: its widths are attributes before opset 11, inputs from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._graph import add_initializer, constant, free_name, input_at, integers_in, why_not_constant

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
    """Return why the widths and the value of a Pad node on a tensor of ``rank`` axes are not constants, or ``None``."""
    mode = pad.attributes.get_string("mode", "constant")
    if mode != "constant":
        return f"it pads in {mode} mode and not with a constant"
    for value, role in zip(pad.inputs[1:], ("widths", "value", "axes"), strict=False):
        if value is not None and (refusal := why_not_constant(value, role)):
            return refusal
    if len(_widths(pad) or []) != 2 * len(_axes(pad, rank)):
        return "its widths are not two for each axis"
    return None


def rank_of(pad: ir.Node) -> int | None:
    """Return the number of axes of the tensor that a Pad node pads, by its shape or by the widths, if it is known."""
    for value in (*pad.inputs[:1], pad.outputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    widths = _widths(pad)
    if widths is None or input_at(pad, 3) is not None:
        return None
    return len(widths) // 2


def padding_of(pad: ir.Node, rank: int) -> Padding:
    """Return the padding by a Pad node for which :func:`why_not_fixed` returns ``None``."""
    widths, value = _widths(pad) or [], constant(input_at(pad, 2))
    fill = pad.attributes.get_float("value", 0.0) if value is None else float(value.item())
    before, after, half = [0] * rank, [0] * rank, len(widths) // 2
    for axis, low, high in zip(_axes(pad, rank), widths[:half], widths[half:], strict=True):
        before[axis], after[axis] = low, high
    return Padding(tuple(before), tuple(after), fill)


def why_not_around(padding: Padding) -> str | None:
    """Return why a padding does more than put a border around a picture, or ``None`` if it does not."""
    if padding.axes & {0, 1}:
        return "it pads the batch or the channels, and not the picture alone"
    if min(*padding.before, *padding.after) < 0:
        return "it cuts the picture (its widths are negative)"
    return None


def added_pads(node: ir.Node, padding: Padding) -> list[int]:
    """Return the ``pads`` of a convolution or a pooling that takes over a padding of its picture."""
    around = (*padding.before[2:], *padding.after[2:])
    own = node.attributes.get_ints("pads", []) or [0] * len(around)
    return [sum(widths) for widths in zip(own, around, strict=True)]


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


def _widths(pad: ir.Node) -> Sequence[int] | None:
    if len(pad.inputs) == 1:
        return pad.attributes.get_ints("pads", [])
    return integers_in(pad.inputs[1])


def _axes(pad: ir.Node, rank: int) -> Sequence[int]:
    axes = integers_in(input_at(pad, 3))
    return range(rank) if axes is None else [axis % rank for axis in axes]


def _padded(shape: ir.Shape, padding: Padding) -> Sequence[int | ir.SymbolicDim | None]:
    sizes: list[int | ir.SymbolicDim | None] = list(shape)
    for axis in padding.axes:
        size = shape[axis]
        sizes[axis] = size + padding.before[axis] + padding.after[axis] if isinstance(size, int) else None
    return sizes
