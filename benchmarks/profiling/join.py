"""Which node of the file each line of a profile computes.

A line belongs to the node that it is named after if that has its operator. If not, the runtime named it after a node
that it took up (a convolution after its ReLU), and it belongs to the nearest one before with that operator that no
other line has. What is still not found the runtime put there itself.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from rexport.benchmarks.profiling.onnxruntime import operator_of
from rexport.benchmarks.profiling.profiled import Convolution, ProfiledLayer
from rexport.cost import macs_of, multiplies, weight_of
from rexport.passes._graph import int_attribute, is_op, is_rectifier, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import onnx_ir as ir

    from rexport.benchmarks.profiling.lines import Line

__all__ = ["joined"]

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast")


def joined(model: ir.Model, lines: Sequence[Line], *, batch: int) -> tuple[ProfiledLayer, ...]:
    """Return the layer of the file that each line of a profile of ``batch`` pictures is, in the order of the lines.

    Raises:
        ModelFileError: The model has no image input.
    """
    nodes = list(model.graph)
    owners = _owners(nodes, lines)
    owned = {owner for owner in owners if owner is not None}
    macs = macs_of(model)
    total = math.fsum(line.seconds for line in lines) or 1.0
    layers = []
    for index, (line, owner) in enumerate(zip(lines, owners, strict=True)):
        parts = [*filter(None, [owner]), *(nodes[place] for place in line.nodes if nodes[place] not in owned)]
        layer_macs = _macs([macs.get(name_of(node)) for node in parts if multiplies(node)])
        layers.append(
            ProfiledLayer(
                name=_name(line, owner, nodes, owners[index:]),
                op_type=operator_of(owner.op_type) if owner else line.operator or line.kernel,
                kernel=line.kernel,
                precision=line.precision,
                nodes=tuple(name_of(node) for node in parts),
                macs=layer_macs,
                seconds=line.seconds,
                share=line.seconds / total,
                gmacs_per_second=layer_macs * batch / line.seconds / 1e9 if layer_macs and line.seconds else None,
                weights=math.prod(_weight_shape(owner) or (0,)),
                convolution=_convolution(owner),
            )
        )
    return tuple(_told_apart(layers))


def _macs(counts: Sequence[int | None]) -> int | None:
    """Return the sum; ``None`` where there is nothing to add, or a count is unknown."""
    if not counts or None in counts:
        return None
    return sum(filter(None, counts))


def _owners(nodes: Sequence[ir.Node], lines: Sequence[Line]) -> list[ir.Node | None]:
    """Return the node that each line computes, none twice."""
    owners: list[ir.Node | None] = [_named(nodes, line) for line in lines]
    for index, owner in enumerate(owners):
        if owner is not None and owner in owners[:index]:
            owners[index] = None
    for index, line in enumerate(lines):
        if owners[index] is None and line.nodes:
            owners[index] = _taken_up(nodes, line, {owner for owner in owners if owner is not None})
    return owners


def _named(nodes: Sequence[ir.Node], line: Line) -> ir.Node | None:
    """Return the node that a line is named after, if that has its operator."""
    named = [nodes[place] for place in line.nodes]
    if line.operator is not None:
        return next((node for node in named if operator_of(node.op_type) == line.operator), None)
    computing = [node for node in named if not is_rectifier(node) and not is_op(node, *_CONVERSIONS)]
    return next((node for node in (*filter(multiplies, named), *computing, *named)), None)


def _taken_up(nodes: Sequence[ir.Node], line: Line, owned: Collection[ir.Node]) -> ir.Node | None:
    """Return the nearest node before those of a line that has its operator, or a node of the line that is free."""
    named = [nodes[place] for place in line.nodes]
    earlier = (node for node in _before(named) if operator_of(node.op_type) == line.operator and node not in owned)
    free = (node for node in named if node not in owned and line.operator not in _CONVERSIONS)
    return next(chain(earlier, free), None)


def _before(nodes: Sequence[ir.Node]) -> Iterator[ir.Node]:
    """Yield what gives the nodes their inputs, the nearest first, up to what multiplies."""
    waiting, visited = list(nodes), set(nodes)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not multiplies(node):
            producers = [value.producer() for value in node.inputs if value is not None]
            fresh = [producer for producer in producers if producer is not None and producer not in visited]
            waiting += fresh
            visited.update(fresh)


def _name(line: Line, owner: ir.Node | None, nodes: Sequence[ir.Node], following: Sequence[ir.Node | None]) -> str:
    if owner is not None:
        return name_of(owner)
    kernel = line.operator or line.kernel
    if line.nodes:
        return f"{kernel} at {name_of(nodes[line.nodes[0]])}"
    after = next((node for node in following if node is not None), None)
    if after is None:
        return f"{kernel} at the end"
    return f"{kernel} before {name_of(after)}"


def _told_apart(layers: Sequence[ProfiledLayer]) -> Iterator[ProfiledLayer]:
    """Yield the layers with a number behind the names that come again."""
    counts: Counter[str] = Counter()
    for layer in layers:
        counts[layer.name] += 1
        if counts[layer.name] > 1:
            layer = replace(layer, name=f"{layer.name} ({counts[layer.name]})")
        yield layer


def _weight_shape(node: ir.Node | None) -> tuple[int, ...]:
    """Return the shape of a node's weight; empty where it has none, or a size is unknown."""
    weight = weight_of(node) if node else None
    shape = weight and weight.shape
    if not shape or not shape.is_static():
        return ()
    return tuple(shape.numpy())


def _convolution(node: ir.Node | None) -> Convolution | None:
    shape = _weight_shape(node)
    if node is None or operator_of(node.op_type) != "Conv" or len(shape) != 4:
        return None
    groups = int_attribute(node, "group", 1)
    return Convolution(
        inputs=shape[1] * groups,
        outputs=shape[0],
        groups=groups,
        kernel=shape[2:],
        strides=tuple(node.attributes.get_ints("strides", [1, 1])),
    )
