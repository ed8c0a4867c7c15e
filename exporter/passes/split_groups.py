"""A grouped convolution, and the convolution before it, become as many of each as there are groups.

    [y_1; …; y_g]  =  concat_j(W_j ∗ x_j)                     a convolution in g groups is g convolutions
    x_j  =  f(U_j ∗ z + b_j)      for  x = f(U ∗ z + b)       one group's channels, f element by element

It is the inverse of ``MergeBranches``, form (c) of ResNeXt's block written as form (b) (Xie et al. 2016,
arXiv:1611.05431, figure 3), and the results are the same. A few wide groups can be faster so: runtimes have kernels for
plain convolutions that they lack for grouped ones, and the Concat is cheap. Only a measurement tells: see
``rexport.tuning``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._builder import Builder
from rexport.passes._graph import (
    attributes_of,
    constant,
    contents_of,
    graph_of,
    inputs_of,
    is_op,
    is_rectifier,
    name_of,
    only_consumer,
    producer_of,
    shape_of,
    take_over,
)
from rexport.passes._quantized import dequantize_of, stored
from rexport.passes.regroup import groups_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

__all__ = ["SplitGroups", "why_not_split"]

_ROLES = ("weight", "bias")
_STORED = ("quantized", "scale", "zero_point")


@dataclass(frozen=True)
class _Split:
    """The grouped ``conv``, the convolution ``first`` before it, and the nodes ``between`` the two and ``after`` both.

    Those nodes are rectifiers and, if the convolutions are quantized, a QuantizeLinear; between the two a
    DequantizeLinear too.
    """

    conv: ir.Node
    first: ir.Node | None
    between: tuple[ir.Node, ...]
    after: tuple[ir.Node, ...]


class SplitGroups(RewritePass[_Split]):
    """Writes grouped convolutions, float or quantized, as branches.

    Args:
        should_split: Tells whether to split a grouped convolution.
    """

    summary = "splits grouped convolutions into branches"

    def __init__(self, should_split: Callable[[ir.Node], bool]) -> None:
        super().__init__()
        self._should_split = should_split

    def match(self, node: ir.Node) -> _Split | None:
        """Match a grouped convolution that should be split, with its surroundings."""
        return _surroundings_of(node) if groups_of(node) > 1 and self._should_split(node) else None

    def check(self, match: _Split) -> str | None:
        """Allow a plain convolution before it, constant weights, known shapes, and one scale for each tensor."""
        if match.first is None or groups_of(match.first) != 1:
            return "no convolution of its own, without groups, stands before it"
        for conv in (match.first, match.conv):
            if any(constant(stored(value)) is None for value in inputs_of(conv)[1:]):
                return "a weight or a bias is not constant"
        if dequantize_of(match.conv.inputs[0]) is not None and not _is_quantized(match.after):
            return "its result is not quantized by itself"
        around = (*match.between, *match.after)
        parameters = [constant(value) for node in around for value in inputs_of(node)[1:]]
        if any(array is None or array.size != 1 for array in parameters):
            return "a tensor beside it has more than one scale"
        if any(node.outputs[0].shape is None or node.outputs[0].dtype is None for node in (match.first, *around)):
            return "shapes around it are not known"
        return None

    def rewrite(self, match: _Split) -> None:
        """Make the branches, concatenate them, and take the nodes that they replace out of the graph."""
        conv, first = match.conv, match.first
        graph, groups = graph_of(conv), groups_of(conv)
        assert first is not None
        results = []
        for group in range(groups):
            branch = _Branch(Builder(graph, before=conv, prefix=f"{name_of(conv)}.{group}"), group, groups)
            value = branch.convolve(first, first.inputs[0], name_of(first))
            value = branch.convolve(conv, branch.follow(match.between, value), name_of(conv))
            results.append(branch.dequantize(match.after, branch.follow(match.after, value)))
        *replaced, last = [node for node in (conv, *match.after) if not is_op(node, "QuantizeLinear")]
        old = last.outputs[0]
        builder = Builder(graph, before=conv, prefix=name_of(conv))
        joined = builder.node("Concat", results, "branches", shape=shape_of(old), dtype=old.dtype, axis=1)
        take_over(old, joined)
        graph.remove([*reversed(replaced), *reversed(match.between), first], safe=True)


def why_not_split(conv: ir.Node) -> str | None:
    """Return why a grouped convolution can't become branches, or ``None`` if it can."""
    return SplitGroups(lambda _: True).check(_surroundings_of(conv))


def _surroundings_of(conv: ir.Node) -> _Split:
    between, source = _above(conv)
    first = producer_of(source, "Conv")
    if source is None or only_consumer(source) is not (*between, conv)[0]:
        first = None
    return _Split(conv, first, between, _below(conv))


@dataclass(frozen=True)
class _Branch:
    """One of ``groups`` branches, which repeats the layers with its share of their channels."""

    builder: Builder
    group: int
    groups: int

    def convolve(self, conv: ir.Node, picture: ir.Value | None, name: str) -> ir.Value:
        """Repeat a convolution for this branch's part of its outputs, without groups."""
        attributes = attributes_of(conv)
        attributes.pop("group", None)
        numbers = [self._part(value, f"{name}.{role}") for value, role in zip(conv.inputs[1:], _ROLES, strict=False)]
        return self._node(conv, "Conv", [picture, *numbers], name, attributes)

    def follow(self, nodes: Sequence[ir.Node], value: ir.Value) -> ir.Value:
        """Repeat nodes that map each number by itself."""
        for node in nodes:
            value = self._node(node, node.op_type, [value, *node.inputs[1:]], name_of(node), attributes_of(node))
        return value

    def dequantize(self, nodes: Sequence[ir.Node], value: ir.Value) -> ir.Value:
        """Dequantize the result of ``nodes`` if they end in a QuantizeLinear; a float stays as it is."""
        if not _is_quantized(nodes):
            return value
        (*_, quantize) = nodes
        return self._node(nodes[0], "DequantizeLinear", [value, *quantize.inputs[1:]], f"{name_of(quantize)}.back", {})

    def _node(
        self,
        like: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Mapping[str, Any],
    ) -> ir.Value:
        result = like.outputs[0]
        source = inputs[1] if op_type == "DequantizeLinear" else result
        assert source is not None
        batch, channels, *sizes = shape_of(result)
        assert isinstance(channels, int)
        shape = [batch, channels // self.groups, *sizes]
        return self.builder.node(op_type, inputs, name, shape=shape, dtype=source.dtype, **attributes)

    def _part(self, value: ir.Value | None, name: str) -> ir.Value | None:
        """Return this branch's part of a weight or a bias, floats or integers."""
        if value is None:
            return None
        dequantize = dequantize_of(value)
        if dequantize is None:
            array = contents_of(value)
            return self.builder.constant(name, self._slice(array, len(array)))
        outputs = len(contents_of(dequantize.inputs[0]))
        parts = [
            self.builder.constant(f"{name}_{role}", self._slice(contents_of(parameter), outputs))
            for parameter, role in zip(inputs_of(dequantize), _STORED, strict=False)
        ]
        shape, dtype = shape_of(parts[0]), value.dtype or ir.DataType.FLOAT
        attributes = attributes_of(dequantize)
        return self.builder.node("DequantizeLinear", parts, name, shape=shape, dtype=dtype, **attributes)

    def _slice(self, array: np.ndarray, outputs: int) -> np.ndarray:
        if array.ndim == 0 or len(array) != outputs:  # one number for all outputs
            return array
        share = outputs // self.groups
        return array[self.group * share : (self.group + 1) * share]


def _above(conv: ir.Node) -> tuple[tuple[ir.Node, ...], ir.Value | None]:
    """Return the rectifiers and Q/DQ right before a convolution, in order, and the tensor that the first one reads."""
    nodes: list[ir.Node] = []
    value, reader = conv.inputs[0], conv
    while value is not None and only_consumer(value) is reader:
        node = value.producer()
        if node is None or not (is_rectifier(node) or is_op(node, "DequantizeLinear", "QuantizeLinear")):
            break
        nodes.insert(0, node)
        value, reader = node.inputs[0], node
    return tuple(nodes), value


def _below(conv: ir.Node) -> tuple[ir.Node, ...]:
    """Return the rectifiers right after a convolution, and the QuantizeLinear that follows them."""
    nodes: list[ir.Node] = []
    value = conv.outputs[0]
    while not _is_quantized(nodes):
        node = only_consumer(value)
        if node is None or not (is_rectifier(node) or is_op(node, "QuantizeLinear")):
            break
        nodes.append(node)
        value = node.outputs[0]
    return tuple(nodes)


def _is_quantized(nodes: Sequence[ir.Node]) -> bool:
    return bool(nodes) and is_op(nodes[-1], "QuantizeLinear")
