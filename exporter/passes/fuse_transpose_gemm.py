"""A linear layer reads a flattened picture in the order in which it is there, and not transposed.

    Flatten(Transpose(x)) Wᵀ + b  =  Flatten(x) W'ᵀ + b        W' has the columns of W in the other order

Networks with channels last flatten (H, W, C), and their convolutions give (C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from rexport.passes._base import RewritePass
from rexport.passes._conv import is_linear_layer, why_not_foldable
from rexport.passes._graph import (
    constant,
    contents_of,
    input_at,
    int_attribute,
    is_op,
    only_consumer,
    producer_of,
    remove_unread,
    replace_initializer,
    shape_of,
)
from rexport.passes._transpose import inverse, order_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.passes._transpose import Order

__all__ = ["FuseTransposeGemm"]


@dataclass(frozen=True)
class _Flattened:
    transpose: ir.Node
    flatten: ir.Node
    gemm: ir.Node
    order: Order
    sizes: tuple[int, ...]


class FuseTransposeGemm(RewritePass[_Flattened]):
    """Transposes the weight of a linear layer instead of the picture that it reads."""

    summary = "transposes a linear layer's weight instead of the picture"

    def match(self, node: ir.Node) -> _Flattened | None:
        """Match a linear layer of a flattened picture that is transposed behind the batch, and of a known size."""
        flatten = producer_of(input_at(node, 0), "Flatten")
        transpose = producer_of(input_at(flatten, 0)) if flatten else None
        order = order_of(transpose)
        if (
            flatten is None
            or transpose is None
            or order is None
            or order[0] != 0
            or int_attribute(flatten, "axis", 1) != 1
        ):
            return None
        if not is_op(node, "Gemm") or constant(node.inputs[1]) is None or not is_linear_layer(node):
            return None
        sizes = tuple(size for size in shape_of(transpose.outputs[0])[1:] if isinstance(size, int))
        is_known = len(sizes) == len(order) - 1 and prod(sizes) == contents_of(node.inputs[1]).shape[1]
        return _Flattened(transpose, flatten, node, order, sizes) if is_known else None

    def check(self, match: _Flattened) -> str | None:
        """Allow it if nothing else reads the flattened picture, and the weight is the layer's own."""
        if only_consumer(match.flatten.outputs[0]) is not match.gemm:
            return "something else reads the flattened picture too"
        return why_not_foldable(match.gemm)

    def rewrite(self, match: _Flattened) -> None:
        """Give the layer its weight in the order of the picture."""
        weight = contents_of(match.gemm.inputs[1])
        picture = weight.reshape(-1, *match.sizes).transpose(inverse(match.order))
        name = f"{match.gemm.outputs[0].name}.weight"
        replace_initializer(match.gemm, 1, np.ascontiguousarray(picture.reshape(weight.shape)), name=name)
        match.flatten.replace_input_with(0, match.transpose.inputs[0])
        remove_unread(match.transpose)
