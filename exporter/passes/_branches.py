"""Following parallel branches upwards to where they begin, as long as all compute the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import constant, inputs_of, int_attribute, is_op, only_consumer, producer_of, shape_of
from rexport.passes._slice import slices_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Branches", "climb", "form_of", "summands"]

# Operators on each element by itself.
_ELEMENTWISE = ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip")


@dataclass(frozen=True)
class Branches:
    """Equal branches: the ``levels`` from where they begin downwards, each with a node for every branch, in order.

    All of them read the whole ``source``, or each its own part of the channels (``split``).
    """

    source: ir.Value
    levels: tuple[tuple[ir.Node, ...], ...]
    split: bool

    @property
    def grouped_levels(self) -> tuple[tuple[ir.Node, ...], ...]:
        """The levels of convolutions in which each branch reads its own channels."""
        convolutions = [level for level in self.levels if is_op(level[0], "Conv")]
        return tuple(convolutions if self.split else convolutions[1:])

    def ungrouped(self, ends: Sequence[ir.Node] = ()) -> bool:
        """Say whether neither the convolutions nor the ``ends`` below them have groups already."""
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
    """Return a key that is equal for operators that compute the same: type, attributes, kernel size, Clip's bounds."""
    attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
    operands: tuple[str, ...] = ()
    if is_op(node, "Conv"):
        operands = tuple(map(str, shape_of(node.inputs[1])[2:]))
    elif is_op(node, *_ELEMENTWISE):
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            return node  # bounds that are computed are equal to no others
        operands = tuple(str(np.ravel(array)) for array in arrays if array is not None)
    return (node.domain, node.op_type, attributes, operands)


def summands(root: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the additions that end in ``root``, which comes first, and the tensors they add up, from left to right."""
    additions, values = [root], list[ir.Value]()
    pending = inputs_of(root)[::-1]
    while pending:
        value = pending.pop()
        addition = producer_of(value, "Add")
        if addition is None or only_consumer(value) not in additions:
            values.append(value)
        else:
            additions.append(addition)
            pending += reversed(inputs_of(addition))
    return additions, values


def _branches(source: ir.Value, levels: list[tuple[ir.Node, ...]], *, split: bool) -> Branches | None:
    branches = Branches(source, tuple(reversed(levels)), split)
    return branches if levels and branches.ungrouped() else None


def _divided(values: Sequence[ir.Value]) -> ir.Value | None:
    """Return the tensor that a Split or Slices divide into ``values``: all of its channels, in order."""
    nodes = [value.producer() for value in values]
    first = nodes[0]
    if first is None or not first.inputs or first.inputs[0] is None:
        return None
    source = first.inputs[0]
    if is_op(first, "Split") and int_attribute(first, "axis", 0) == 1 and list(first.outputs) == list(values):
        return source
    slices = [node for node in nodes if is_op(node, "Slice") and node.inputs[0] is source]
    shape, end = shape_of(source), 0
    if len(slices) < len(nodes) or len(shape) < 2 or not isinstance(shape[1], int):
        return None
    for node in slices:
        channels = _channels_of(node, len(shape))
        if channels is None or channels.start != end:
            return None
        end = min(channels.stop, shape[1])
    return source if end == shape[1] else None


def _channels_of(node: ir.Node, rank: int) -> range | None:
    """Return the channels that a Slice takes; ``None`` if it slices another axis or more than one, or leaves gaps."""
    match slices_of(node, rank):
        case (part,) if part.axis == 1 and part.end > part.start >= 0 and part.step == 1:
            return range(part.start, part.end)
    return None
