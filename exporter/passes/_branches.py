"""Following parallel branches upwards, as long as all do the same, to where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import constant, int_attribute, is_op, only_consumer
from rexport.passes._slice import slices_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Branches", "climb", "form_of", "summands"]

# What works on each element by itself.
_ELEMENTWISE = ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip")


@dataclass(frozen=True)
class Branches:
    """Equal branches: the ``levels`` from where they begin downwards, each with a node for every branch, in order.

    They begin at ``source``: all with the whole of it, or each with its part of the channels (``split``).
    """

    source: ir.Value
    levels: tuple[tuple[ir.Node, ...], ...]
    split: bool

    @property
    def grouped_levels(self) -> tuple[tuple[ir.Node, ...], ...]:
        """The levels of convolutions in which each branch has channels of its own to read."""
        convolutions = [level for level in self.levels if is_op(level[0], "Conv")]
        return tuple(convolutions if self.split else convolutions[1:])

    def ungrouped(self, ends: Sequence[ir.Node]) -> bool:
        """Say whether none of the convolutions, and of ``ends`` below them, has groups already."""
        nodes = [node for level in (*self.levels, ends) for node in level if is_op(node, "Conv")]
        return all(int_attribute(node, "group", 1) == 1 for node in nodes)


def climb(values: Sequence[ir.Value]) -> Branches | None:
    """Return the branches whose results are ``values``; ``None`` if they are not equal all the way up."""
    levels: list[tuple[ir.Node, ...]] = []
    while True:
        source = _divided(values)
        if source is not None:
            return _branches(source, levels, split=True)
        nodes = tuple(node for value in values if (node := value.producer()) is not None)
        if len(set(nodes)) < max(2, len(values)) or any(only_consumer(value) is None for value in values):
            return None
        if not is_op(nodes[0], "Conv", "BatchNormalization", *_ELEMENTWISE) or len({form_of(n) for n in nodes}) > 1:
            return None
        levels.append(nodes)
        above = [node.inputs[0] for node in nodes]
        if above[0] is not None and all(value is above[0] for value in above):
            return _branches(above[0], levels, split=False) if is_op(nodes[0], "Conv") else None
        values = [value for value in above if value is not None]


def form_of(node: ir.Node) -> object:
    """Return what two operators that do the same have in common: type, attributes, kernel size, a Clip's bounds."""
    attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
    more: tuple[str, ...] = ()
    if is_op(node, "Conv"):
        weight = node.inputs[1]
        more = () if weight is None or weight.shape is None else tuple(map(str, weight.shape[2:]))
    elif is_op(node, *_ELEMENTWISE):
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            return node  # bounds that are computed are like no others
        more = tuple(str(np.ravel(array)) for array in arrays if array is not None)
    return (node.domain, node.op_type, attributes, more)


def summands(root: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the additions that ``root`` ends, itself first, and what they add up, from left to right."""
    additions, values = [], []
    waiting: list[ir.Node | ir.Value] = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ir.Value):
            producer = one.producer()
            if producer is None or not is_op(producer, "Add") or only_consumer(one) not in additions:
                values.append(one)
                continue
            one = producer
        additions.append(one)
        waiting += [value for value in reversed(one.inputs) if value is not None]
    return additions, values


def _branches(source: ir.Value, levels: list[tuple[ir.Node, ...]], *, split: bool) -> Branches | None:
    branches = Branches(source, tuple(reversed(levels)), split)
    return branches if branches.ungrouped(()) else None


def _divided(values: Sequence[ir.Value]) -> ir.Value | None:
    """Return the tensor whose channels ``values`` are, in order and all of them, if a Split or Slices made them."""
    nodes = [value.producer() for value in values]
    first = nodes[0]
    if first is None or not first.inputs or first.inputs[0] is None:
        return None
    if is_op(first, "Split"):
        whole = int_attribute(first, "axis", 0) == 1 and list(first.outputs) == list(values)
        return first.inputs[0] if whole else None
    if not all(is_op(node, "Slice") and node is not None and node.inputs[0] is first.inputs[0] for node in nodes):
        return None
    source = first.inputs[0]
    if source.shape is None or len(source.shape) < 2:
        return None
    channels, at = source.shape[1], 0
    for node in nodes:
        part = None if node is None else _range_of(node, len(source.shape))
        if part is None or part[0] != at or not isinstance(channels, int):
            return None
        at = min(part[1], channels)
    return source if at == channels else None


def _range_of(node: ir.Node, rank: int) -> tuple[int, int] | None:
    """Return the first channel that a Slice takes and the one after its last; ``None`` for other slices."""
    parts = slices_of(node, rank)
    if parts is None or len(parts) != 1:
        return None
    (part,) = parts
    return (part.start, part.end) if part.axis == 1 and part.end > part.start >= 0 and part.step == 1 else None
