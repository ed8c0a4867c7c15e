"""Parallel branches of equal layers become one layer each, convolutions grouped: ResNeXt's forms (a) and (b) to (c).

For C branches that read the same picture, or its channels one part each (``Split``, or ``Slice`` by ``Slice``):

    concat_i(U_i ∗ x)        =  [U_1; …; U_C] ∗ x                              weights stacked by output channels
    concat_i(V_i ∗ x_i)      =  (V_1, …, V_C) ∗ concat_i(x_i)                  one convolution in C groups
    concat_i(f(x_i))         =  f(concat_i(x_i))                               f element by element, or a BatchNorm
    Σ_i(W_i ∗ x_i)           =  [W_1, …, W_C] ∗ concat_i(x_i)                  weights side by side, biases added

So a Concat (or a sum of convolutions) is followed upwards, through layers that are the same in all branches, to where
the branches begin; nothing is changed if they do not begin together. Xie et al. 2016, arXiv:1611.05431, figure 3.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._batch_norm import why_not_affine
from rexport.passes._branches import Branches, climb, form_of, summands
from rexport.passes._conv import weights_of, why_not_foldable
from rexport.passes._graph import (
    add_initializer,
    contents_of,
    free_name,
    graph_of,
    input_at,
    inputs_of,
    int_attribute,
    is_op,
    name_of,
    only_consumer,
    producer_of,
    shape_of,
    take_over,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MergeBranches"]


@dataclass(frozen=True)
class _Merge:
    """Where branches end: at ``root``, a Concat or the last addition, which adds up ``ends`` and other ``addends``."""

    root: ir.Node
    branches: Branches
    ends: tuple[ir.Node, ...] = ()
    addends: tuple[ir.Value, ...] = ()
    additions: tuple[ir.Node, ...] = ()

    @property
    def convolutions(self) -> list[ir.Node]:
        return [node for level in (*self.branches.levels, self.ends) for node in level if is_op(node, "Conv")]


class MergeBranches(RewritePass[_Merge]):
    """Merges equal parallel branches into grouped convolutions."""

    summary = "merges equal parallel branches into grouped convolutions"

    def match(self, node: ir.Node) -> _Merge | None:
        """Match a Concat of channels, or the last of several additions, below equal branches."""
        is_join = is_op(node, "Concat") and int_attribute(node, "axis", 0) == 1 and None not in node.inputs
        if is_join and (branches := climb(inputs_of(node))):
            return _Merge(node, branches)
        if is_op(node, "Add") and not is_op(only_consumer(node.outputs[0]), "Add"):
            return _match_sum(node)
        return None

    def check(self, match: _Merge) -> str | None:
        """Allow constant weights of the branches' own, and the same number of channels in each of them."""
        for conv in match.convolutions:
            if refusal := why_not_foldable(conv):
                return f"in the branch with {name_of(conv)}, {refusal}"
        for node in itertools.chain.from_iterable(match.branches.levels):
            if is_op(node, "BatchNormalization") and (refusal := why_not_affine(node)):
                return f"in the branch with {name_of(node)}, {refusal}"
        for level in (*match.branches.grouped_levels, match.ends):
            if len({contents_of(conv.inputs[1]).shape for conv in level if is_op(conv, "Conv")}) > 1:
                return f"its {len(level)} branches have different numbers of channels"
        return None

    def rewrite(self, match: _Merge) -> None:
        """Put one layer in the place of each level of the branches, and take the branches out."""
        graph, branches = graph_of(match.root), match.branches
        current, new = branches.source, []
        for level in branches.levels:
            groups = len(level) if level in branches.grouped_levels else 1
            new.append(_joined(graph, level, current, groups=groups))
            current = new[-1].outputs[0]
        if match.ends:
            new.append(_summed(graph, match.ends, current))
            current = new[-1].outputs[0]
        result = match.root.outputs[0]
        for value in match.addends:
            total = ir.node("Add", [current, value])
            _describe(total, graph, like=result, name=f"{result.name}_rest", channels=None)
            if value is not match.addends[-1]:  # the next addend may broadcast it
                total.outputs[0].shape = None
            new.append(total)
            current = total.outputs[0]
        graph.insert_before(match.root, new)
        take_over(result, current)
        for node in (*match.additions, *match.ends, *(n for level in reversed(branches.levels) for n in level)):
            graph.remove(node, safe=True)


def _match_sum(root: ir.Node) -> _Merge | None:
    """Match the convolutions among the summands of ``root`` that are alike and stand below equal branches."""
    additions, values = summands(root)
    alike: dict[object, list[ir.Value]] = {}
    for value in values:
        conv = producer_of(value, "Conv")
        if conv and only_consumer(value):
            alike.setdefault(form_of(conv), []).append(value)
    for results in alike.values():
        ends = tuple(conv for value in results if (conv := value.producer()))
        pictures = [conv.inputs[0] for conv in ends if conv.inputs[0] is not None]
        if len(pictures) < max(2, len(ends)) or any(only_consumer(picture) is None for picture in pictures):
            continue
        branches = climb(pictures)
        if branches and branches.ungrouped(ends):
            addends = tuple(value for value in values if value not in results)
            return _Merge(root, branches, ends, addends, tuple(node for node in additions if node is not root))
    return None


def _joined(graph: ir.Graph, level: Sequence[ir.Node], source: ir.Value, *, groups: int) -> ir.Node:
    """Return one operator, in ``groups``, that does the work of a level; it is not in the graph yet."""
    first, name = level[0], _common_name(level)
    inputs: list[ir.Value | None] = [source, *first.inputs[1:]]
    attributes = [attribute for key, attribute in first.attributes.items() if key != "group"]
    channels = None
    if is_op(first, "Conv"):
        weights, biases = zip(*(weights_of(node) for node in level), strict=True)
        inputs = [source, *_constants(graph, name, level, np.concatenate(weights), np.concatenate(biases))]
        attributes.append(ir.AttrInt64("group", groups))
        channels = sum(map(len, biases))
    elif is_op(first, "BatchNormalization"):
        parameters = [np.concatenate([contents_of(node.inputs[index]) for node in level]) for index in range(1, 5)]
        kinds = ("weight", "bias", "running_mean", "running_var")
        inputs[1:] = [add_initializer(graph, f"{name}.{k}", p) for k, p in zip(kinds, parameters, strict=True)]
        channels = len(parameters[0])
    elif (shape := shape_of(source)) and isinstance(shape[1], int):
        channels = shape[1]
    node = ir.Node("", first.op_type, inputs, attributes=attributes)
    return _describe(node, graph, like=first.outputs[0], name=name, channels=channels)


def _summed(graph: ir.Graph, convolutions: Sequence[ir.Node], source: ir.Value) -> ir.Node:
    """Return one convolution that adds up several; it is not in the graph yet."""
    first, name = convolutions[0], _common_name(convolutions)
    weights, biases = zip(*(weights_of(node) for node in convolutions), strict=True)
    constants = _constants(graph, name, convolutions, np.concatenate(weights, axis=1), np.sum(biases, axis=0))
    node = ir.Node("", "Conv", [source, *constants], attributes=list(first.attributes.values()))
    return _describe(node, graph, like=first.outputs[0], name=name, channels=len(biases[0]))


def _constants(
    graph: ir.Graph, name: str, convolutions: Sequence[ir.Node], weight: np.ndarray, bias: np.ndarray
) -> list[ir.Value]:
    """Register a weight, and a bias if one of the convolutions has one, in their dtype."""
    dtype = contents_of(convolutions[0].inputs[1]).dtype
    constants = [add_initializer(graph, f"{name}.weight", weight.astype(dtype))]
    if any(input_at(node, 2) is not None for node in convolutions):
        constants.append(add_initializer(graph, f"{name}.bias", bias.astype(dtype)))
    return constants


def _describe(node: ir.Node, graph: ir.Graph, *, like: ir.Value, name: str, channels: int | None) -> ir.Node:
    """Give a new node and its result a free name, and the type and shape of another result but for its channels."""
    (result,) = node.outputs
    node.name = result.name = free_name(graph, name)
    result.type = like.type
    if like.shape is not None:
        result.shape = ir.Shape([like.shape[0], channels or like.shape[1], *like.shape[2:]])
    return node


def _common_name(level: Sequence[ir.Node]) -> str:
    """Return a name for a level: that of its first node, without the parts that differ from the second's."""
    first, second = (re.split(r"(?=[./])", name_of(node)) for node in level[:2])
    if len(first) != len(second):
        return "".join(first)
    common = (part for part, counterpart in zip(first, second, strict=True) if part == counterpart)
    return "".join(common) or "".join(first)
