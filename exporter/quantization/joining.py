"""A residual block's last convolution and its projection shortcut become one convolution, which saves their sum.

    W a + b  +  V x[:, :, ::s, ::s] + d   =   [W  V] · concat(a, x[:, :, ::s, ::s])  +  (b + d)

for 1×1 convolutions (the projections of He et al. 2015, arXiv:1512.03385, equation 2, in bottleneck blocks). It is the
same function with as many multiply-adds. In integers, two results are no longer rounded, stored and read again for an
addition; they are the widest tensors of the block. Integers can only be concatenated where they have one scale:

    a' = a / f        W' = W f        f = scale of a / scale of x

with the convolution before ``a`` divided by f, which through a ReLU is the same function too (see ``equalization``).
A MaxPool of 1×1 windows takes every s-th pixel, as it has an integer kernel everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice, permutations
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from rexport.passes._builder import Builder
from rexport.passes._conv import pads, weights_of, why_not_foldable
from rexport.passes._graph import inputs_of, int_attribute, is_op, name_of, only_consumer, remembered_names, take_over
from rexport.quantization.equalization import scale_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from rexport.calibration import CalibrationTable
    from rexport.quantization.equalization import Equalized
    from rexport.quantization.plan import Plan

__all__ = ["join_projections"]


@dataclass(frozen=True)
class _Block:
    """The end of a residual block: ``add`` sums up what ``last`` and ``projection`` give, 1×1 convolutions.

    Attributes:
        before: The convolution whose result, rectified or not, ``last`` reads.
    """

    add: ir.Node
    last: ir.Node
    projection: ir.Node
    before: ir.Node

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return self.add, self.last, self.projection, self.before


def join_projections(equalized: Equalized, planned: Plan, table: CalibrationTable) -> Equalized:
    """Return an equalized model in which projections are one with the convolution that they are added to.

    Args:
        equalized: The equalized model.
        planned: The plan of its integers; blocks that stay in float in part are left as they are.
        table: The statistics that it was equalized by. Tensors that are always zero have no scale to match.
    """
    model, factors, scaled_as, joined = equalized.model.clone(), dict(equalized.factors), dict[str, str](), list[str]()
    integer = {name_of(layer.node) for layer in planned.placement.layers if layer.integer}
    graph = model.graph
    with remembered_names(graph):
        for block in list(_blocks(graph)):
            if not all(name_of(node) in integer for node in block.nodes):
                continue
            (hidden, x) = (node.inputs[0] for node in (block.last, block.projection))
            assert hidden is not None
            assert x is not None
            of_hidden, of_x = planned.map_of(hidden), planned.map_of(x)
            ranges = [table.tensors.get(planned.placement.tensors[str(value.name)]) for value in (hidden, x)]
            if of_hidden.zero_point != of_x.zero_point or any(r is None or r.high <= 0 for r in ranges):
                continue
            channels = len(weights_of(block.before)[1])
            factor = np.full(channels, float(of_hidden.scale) / float(of_x.scale))
            scale_layer(block.before, None, factor)
            scale_layer(block.last, factor, None)
            for name in {str(block.before.outputs[0].name), str(hidden.name)}:
                factors[name] = factors.get(name, 1.0) * factor
            together = _join(graph, block)
            scaled_as |= dict.fromkeys((str(hidden.name), str(together.name)), str(x.name))
            joined.append(name_of(block.add))
    return replace(equalized, model=model, factors=factors, scaled_as=scaled_as, joined=tuple(joined))


def _blocks(graph: ir.Graph) -> Iterator[_Block]:
    for add in graph:
        if not is_op(add, "Add") or len(add.inputs) != 2:
            continue
        ends = [value.producer() for value in inputs_of(add) if only_consumer(value) is add]
        blocks = (_block(add, last, projection) for last, projection in permutations(ends, 2))
        yield from islice(filter(None, blocks), 1)


def _block(add: ir.Node, last: ir.Node | None, projection: ir.Node | None) -> _Block | None:
    """Return the block that ends in these nodes; ``None`` if they are not of its kinds."""
    if not (_is_pointwise(last) and _is_pointwise(projection)):
        return None
    x = projection.inputs[0]
    before = _convolution_before(last)
    if _strides(last) != [1, 1] or before is None or x is None or x is last.inputs[0]:
        return None
    if add.outputs[0].shape is None or add.outputs[0].dtype is None:
        return None
    return _Block(add, last, projection, before)


def _is_pointwise(conv: ir.Node | None) -> TypeGuard[ir.Node]:
    """Say whether a node is a convolution of single pixels of images, with weights of its own."""
    if not is_op(conv, "Conv") or why_not_foldable(conv) is not None or int_attribute(conv, "group", 1) != 1:
        return False
    return weights_of(conv)[0].shape[2:] == (1, 1) and not pads(conv)


def _convolution_before(conv: ir.Node) -> ir.Node | None:
    """Return the convolution whose result, rectified or not, ``conv`` alone reads, if its weights can be changed."""
    before = _sole_source(conv)
    if is_op(before, "Relu"):
        before = _sole_source(before)
    return before if is_op(before, "Conv") and why_not_foldable(before) is None else None


def _sole_source(node: ir.Node) -> ir.Node | None:
    """Return the producer of a node's input, if nothing else reads that."""
    value = node.inputs[0]
    return value.producer() if value is not None and only_consumer(value) is node else None


def _strides(conv: ir.Node) -> list[int]:
    return list(conv.attributes.get_ints("strides", [1, 1]))


def _join(graph: ir.Graph, block: _Block) -> ir.Value:
    """Put one convolution in the place of the sum; return the tensor that it reads."""
    hidden, x, result = block.last.inputs[0], block.projection.inputs[0], block.add.outputs[0]
    assert hidden is not None
    assert x is not None
    assert result.shape is not None
    assert result.dtype is not None
    (last, b), (projection, d) = weights_of(block.last), weights_of(block.projection)
    builder, name, dtype = Builder(graph, before=block.add, prefix=name_of(block.add)), name_of(block.add), result.dtype
    batch, _, *sides = result.shape
    strides = _strides(block.projection)
    if strides != [1, 1]:
        shape = [batch, projection.shape[1], *sides]
        x = builder.node("MaxPool", [x], "pixels", shape=shape, dtype=dtype, kernel_shape=[1, 1], strides=strides)
    weight, bias = np.concatenate([last, projection], axis=1), b + d
    together = builder.node(
        "Concat", [hidden, x], "joined", shape=[batch, weight.shape[1], *sides], dtype=dtype, axis=1
    )
    constants = [
        builder.constant(role, array.astype(dtype.numpy())) for role, array in (("weight", weight), ("bias", bias))
    ]
    conv = builder.node("Conv", [together, *constants], "conv", shape=[*result.shape], dtype=dtype, kernel_shape=[1, 1])
    take_over(result, conv)
    node = conv.producer()
    assert node is not None
    node.name = name
    for old in (block.last, block.projection):
        graph.remove(old, safe=True)
    return together
