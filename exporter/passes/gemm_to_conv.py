"""A linear layer of each pixel is a 1×1 convolution.

    Reshape(Reshape(Transpose(x), (N·H·W, C)) Wᵀ + b, (N, H, W, O))  =  Transpose(x ∗ W + b)

for x of shape (N, C, H, W) and Transposes to channels last. Networks with channels last have dense layers written so.
It is done where such a Transpose is before it, or its inverse behind it, and so cancels a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._builder import Builder
from rexport.passes._conv import is_linear_layer
from rexport.passes._graph import (
    constant,
    contents_of,
    graph_of,
    is_op,
    only_consumer,
    producer_of,
    remove_unread,
    replace_node,
    shape_of,
)
from rexport.passes._transpose import inverse, order_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.passes._transpose import Order

__all__ = ["GemmToConv"]


@dataclass(frozen=True)
class _Pixels:
    """A linear layer between two Reshapes, to a list of pixels and back; ``order`` puts channels last."""

    picture: ir.Value
    order: Order
    flat: ir.Node
    gemm: ir.Node
    back: ir.Node


class GemmToConv(RewritePass[_Pixels]):
    """Rewrites a linear layer of the pixels of a transposed picture as a convolution of the picture."""

    summary = "turns a linear layer of each pixel into a 1×1 convolution"

    def match(self, node: ir.Node) -> _Pixels | None:
        """Match a linear layer of all pixels, if the picture that comes out has the axes of the one that went in."""
        if not is_op(node, "Gemm") or constant(node.inputs[1]) is None or not is_linear_layer(node):
            return None
        flat, back = producer_of(node.inputs[0], "Reshape"), only_consumer(node.outputs[0])
        if flat is None or flat.inputs[0] is None or not is_op(back, "Reshape"):
            return None
        picture, sizes = flat.inputs[0], shape_of(flat.inputs[0])
        order = (0, *range(2, len(sizes)), 1)
        if len(sizes) < 4 or order not in (order_of(picture.producer()), _undone_by(only_consumer(back.outputs[0]))):
            return None
        (outputs, channels), sides = contents_of(node.inputs[1]).shape, sizes[1:-1]
        is_known = all(isinstance(side, int) for side in sides) and sizes[-1] == channels
        same = shape_of(back.outputs[0])[1:] == (*sides, outputs)  # so that the batch is the same too
        return _Pixels(picture, order, flat, node, back) if is_known and same else None

    def rewrite(self, match: _Pixels) -> None:
        """Put a convolution in the place of the layer, between two Transposes; some of them cancel later."""
        graph, gemm, order = graph_of(match.gemm), match.gemm, match.order
        builder = Builder(graph, before=gemm, prefix=str(gemm.outputs[0].name))
        weight, dtype = contents_of(gemm.inputs[1]), gemm.outputs[0].dtype or match.picture.dtype
        kernel = builder.constant("kernel", weight.reshape(*weight.shape, *[1] * (len(order) - 2)))
        first = inverse(order)
        sizes, results = shape_of(match.picture), shape_of(match.back.outputs[0])
        turned = builder.node(
            "Transpose", [match.picture], "first", shape=[sizes[axis] for axis in first], dtype=dtype, perm=first
        )
        product = builder.node(
            "Conv", [turned, kernel, *gemm.inputs[2:]], "picture", shape=[results[axis] for axis in first], dtype=dtype
        )
        replace_node(match.back, "Transpose", [product], {"perm": order})
        graph.remove(gemm, safe=True)
        remove_unread(match.flat)


def _undone_by(transpose: ir.Node | None) -> Order | None:
    """Return the order that a Transpose undoes."""
    order = order_of(transpose)
    return None if order is None else inverse(order)
