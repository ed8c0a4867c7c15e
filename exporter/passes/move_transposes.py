"""Transposes move past the operators between them until they cancel.

Exporters of networks whose channels are last put a Transpose before and after each operator that ONNX has for channels
first alone:

    … Conv → Transpose → Relu → Transpose → Conv …   =   … Conv → Relu → Conv …

Operators that are connected, and compute the same on transposed tensors (see ``_layout``), move together: their tensors
are transposed, as are their axes and constants; where the Transposes around them were, there are none, and others come
where there were none. It is done where fewer are left. Where as many are left, it is done if fewer of them stand
between a convolution and its neighbours, which fuse then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._words import counted
from rexport.passes._base import RewritePass
from rexport.passes._graph import (
    constant,
    contents_of,
    free_name,
    graph_of,
    input_at,
    is_op,
    name_of,
    producer_of,
    replace_initializer,
)
from rexport.passes._layout import move_of
from rexport.passes._transpose import Order, composed, inverse, is_in_order, join, order_of, reorder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rexport.passes._base import PassResult
    from rexport.passes._layout import Move

__all__ = ["MoveTransposes"]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_VISITS = 16  # at most; three were seen


@dataclass(frozen=True)
class _Region:
    """Connected nodes that can compute on tensors transposed by ``order``."""

    order: Order
    moves: dict[ir.Node, Move] = field(default_factory=dict)

    def reads(self, node: ir.Node, index: int) -> bool:
        """Say whether a node is in the region and reads its input ``index`` transposed."""
        return node in self.moves and index in self.moves[node].inputs

    def readers_outside(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Return what reads a tensor as it is, and as which of its inputs."""
        return [(node, index) for node, index in value.uses() if not self.reads(node, index)]

    def results(self) -> list[ir.Value]:
        """Return the tensors that it computes and that become transposed."""
        return [value for node, move in self.moves.items() if move.gives_transposed for value in node.outputs]

    def sources(self) -> list[ir.Value]:
        """Return the tensors that it reads transposed, and does not compute itself; constants are transposed now."""
        inside = set(self.results())
        reads = (node.inputs[index] for node, move in self.moves.items() for index in move.inputs)
        values = dict.fromkeys(value for value in reads if value is not None and value not in inside)
        return [value for value in values if constant(value) is None]

    def existing(self, value: ir.Value, sources: Collection[ir.Value]) -> ir.Node | None:
        """Return a Transpose of one of the ``sources`` that stays, and gives what the region reads."""
        nodes = (node for node in _transposes_of(value, self.order) if is_op(node, "Transpose"))
        stays = (
            node for node in nodes if node.outputs[0] not in sources and node.graph is next(iter(self.moves)).graph
        )
        return next(stays, None)

    @property
    def is_gain(self) -> bool:
        """Whether fewer Transposes are left, or as many, and fewer of them at convolutions."""
        total, at_convolutions = 0, 0
        for count, is_at_convolution in self._changes():
            total += count
            at_convolutions += count * is_at_convolution
        return (total, at_convolutions) < (0, 0)

    def _changes(self) -> Iterator[tuple[int, bool]]:
        """Yield for each Transpose that comes 1, for each that goes −1, and whether it is at a convolution."""
        results, sources = dict.fromkeys(self.results()), dict.fromkeys(self.sources())
        for value in sources:
            transpose, order = producer_of(value), order_of(producer_of(value))
            if transpose is None or order is None:
                yield int(self.existing(value, sources) is None), is_op(transpose, *_CONVOLUTIONS)
                continue
            source = transpose.inputs[0]
            stays = (
                value.is_graph_output() or bool(self.readers_outside(value)) or len(_transposes_of(source, order)) > 1
            )
            if source in results:
                yield int(stays or order == self.order), False
            else:
                is_needed = not is_in_order(composed(order, self.order))
                yield int(is_needed) - int(not stays), is_op(producer_of(source), *_CONVOLUTIONS)
        for value in results:
            if cancelled := _transposes_of(value, self.order):  # equal ones count as one, which they become
                readers = [reader for node in cancelled for reader in node.outputs[0].consumers()]
                yield -1, any(is_op(node, *_CONVOLUTIONS) for node in readers)
            others = [node for node, index in self.readers_outside(value) if index or order_of(node) is None]
            if others or value.is_graph_output():
                yield 1, any(is_op(node, *_CONVOLUTIONS) for node in others)


class MoveTransposes(RewritePass[_Region]):
    """Moves Transposes past the operators that they stand around, where fewer are left."""

    summary = "moves Transposes until they cancel"

    def call(self, model: ir.Model) -> PassResult:
        """Visit the nodes until none moves: where some have moved, it may be worthwhile for others."""
        changed = 0
        for _ in range(_VISITS):
            result = super().call(model)
            changed += result.report.changed
            if not result.modified:
                break
        return self.result(model, changed=changed, refusals=result.report.refusals)

    def match(self, node: ir.Node) -> _Region | None:
        """Match a Transpose with operators behind or before it that can do without."""
        order, source = order_of(node), input_at(node, 0)
        if order is None or is_in_order(order) or source is None:
            return None
        readers = [(reader, index) for reader, index in node.outputs[0].uses() if reader.graph is node.graph]
        regions = [_region(inverse(order), readers), _region(order, [(producer_of(source), None)])]
        regions = [region for region in regions if region.moves]
        return next((region for region in regions if region.is_gain), regions[0] if regions else None)

    def check(self, match: _Region) -> str | None:
        """Allow it where it gains something."""
        if match.is_gain:
            return None
        nodes = list(match.moves)
        return f"moved past {name_of(nodes[0])} ({counted(len(nodes), 'operator')} in all), as many would be left"

    def rewrite(self, match: _Region) -> None:
        """Transpose the constants and the axes of a region, and its tensors for those that do not belong to it."""
        outside = {value: _outside(match, value) for value in match.results()}
        sources = dict.fromkeys(match.sources())
        transposed = {value: _transposed(match, value, sources) for value in sources}
        for node, move in match.moves.items():
            for index in move.inputs:
                value = node.inputs[index]
                if value in transposed:
                    node.replace_input_with(index, transposed[value])
                elif value not in outside:
                    _transpose_constant(node, index, match.order)
        for value, readers in outside.items():
            _restore(value, readers, match.order)
        for value in transposed.values():
            second = value.producer()
            first = producer_of(second.inputs[0]) if second else None
            if first is not None and second is not None and order_of(first) is not None:
                join(first, second)
        for node, move in match.moves.items():
            if move.change is not None:
                move.change(node)


def _region(order: Order, begin: Sequence[tuple[ir.Node | None, int | None]]) -> _Region:
    """Return all that is connected with some nodes, each by the input that is read transposed, or by its results."""
    region, pending = _Region(order), list(begin)
    while pending:
        node, index = pending.pop()
        if node is None or node in region.moves or (move := move_of(node, order)) is None:
            continue
        if not (move.gives_transposed if index is None else index in move.inputs):
            continue
        region.moves[node] = move
        pending += [(producer_of(node.inputs[position]), None) for position in move.inputs]
        if move.gives_transposed:
            uses = [use for value in node.outputs for use in value.uses()]
            pending += [(reader, position) for reader, position in uses if reader.graph is node.graph]
    return region


def _outside(region: _Region, value: ir.Value) -> list[tuple[ir.Node, int, Order | None]]:
    """Return what reads a result as it is, as which of its inputs, and the order if it is a Transpose."""
    return [(node, index, order_of(node) if index == 0 else None) for node, index in region.readers_outside(value)]


def _transposes_of(value: ir.Value | None, order: Order) -> list[ir.Node]:
    """Return the nodes that transpose a tensor by ``order``."""
    uses = [] if value is None else value.uses()
    return [node for node, index in uses if index == 0 and order_of(node) == order]


def _transposed(region: _Region, value: ir.Value, sources: Collection[ir.Value]) -> ir.Value:
    """Return a source transposed, computed right after it, as any node may read it then."""
    existing = None if order_of(value.producer()) else region.existing(value, sources)
    if existing is None:
        return _insert_transpose(value, region.order)
    graph_of(existing).remove(existing)
    _insert_after(value, existing)
    return existing.outputs[0]


def _insert_transpose(value: ir.Value, order: Order) -> ir.Value:
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    name = free_name(graph, f"{value.name}_transposed")
    transpose = ir.node("Transpose", [value], {"perm": order}, name=name)
    (result,) = transpose.outputs
    result.name, result.type, result.shape = name, value.type, _transposed_shape(value.shape, order)
    _insert_after(value, transpose)
    return result


def _insert_after(value: ir.Value, node: ir.Node) -> None:
    graph, producer = value.graph, value.producer()
    assert isinstance(graph, ir.Graph)
    if producer is not None:
        graph.insert_after(producer, node)
    else:
        graph.insert_before(graph.node(0), node)


def _transposed_shape(shape: ir.Shape | None, order: Order) -> ir.Shape | None:
    return None if shape is None else ir.Shape([shape[axis] for axis in order])


def _restore(value: ir.Value, outside: Sequence[tuple[ir.Node, int, Order | None]], order: Order) -> None:
    """Give what reads a result that is transposed now the tensor as it was; Transposes take the new one."""
    value.shape, back = _transposed_shape(value.shape, order), inverse(order)
    others = [(node, index) for node, index, then in outside if then is None]
    if others or value.is_graph_output():
        restored = _insert_transpose(value, back)
        for node, index in others:
            node.replace_input_with(index, restored)
        if value.is_graph_output():
            _give_output(value, restored)
    for node, _, then in outside:
        if then is not None:
            reorder(node, value, composed(back, then))


def _give_output(value: ir.Value, restored: ir.Value) -> None:
    """Let another tensor be an output of the model in the place of ``value``, and under its name."""
    graph, name = value.graph, value.name
    assert isinstance(graph, ir.Graph)
    value.name = restored.name
    restored.name = name
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = restored


def _transpose_constant(node: ir.Node, index: int, order: Order) -> None:
    array, name = contents_of(node.inputs[index]), f"{node.outputs[0].name}_constant_transposed"
    array = array.reshape(*[1] * (len(order) - array.ndim), *array.shape).transpose(order)
    replace_initializer(node, index, np.ascontiguousarray(array), name=name)
