"""A product with a constant matrix becomes Gemm in the one form that has INT8 kernels, x Wᵀ + b.

    x B              =  x Wᵀ          W = Bᵀ
    x B + k          =  x Wᵀ + k      k one number per output, or one for all
    α x B + β C      =  x Wᵀ + b      W = α Bᵀ (or α B, where it was transposed), b = β C, one number per output

PyTorch writes a Linear layer so: W of shape (outputs, inputs), as a convolution has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._affine import affine_of, mapped_by, why_not_affine
from rexport.passes._base import RewritePass
from rexport.passes._conv import is_linear_layer, set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import (
    constant,
    graph_of,
    input_at,
    int_attribute,
    is_op,
    only_consumer,
    shape_of,
    take_over,
    type_in_words,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MatMulToGemm"]

_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class _Product:
    """A product, and the addition of a constant right after it, if there is one."""

    product: ir.Node
    addition: ir.Node | None = None


class MatMulToGemm(RewritePass[_Product]):
    """Rewrites MatMul and Add, and other forms of Gemm, as ``x Wᵀ + b``."""

    summary = "turns MatMul, Add and any Gemm into x · Wᵀ + b"

    def match(self, node: ir.Node) -> _Product | None:
        """Match a MatMul of rows with a constant matrix, or a Gemm with one in any other form."""
        weight = constant(input_at(node, 1))
        if not is_op(node, "MatMul", "Gemm") or weight is None or weight.ndim != 2:
            return None
        if is_op(node, "Gemm") and not is_linear_layer(node):
            return _Product(node)
        if is_op(node, "Gemm") or len(shape_of(node.inputs[0])) != 2:
            return None
        addition = only_consumer(node.outputs[0])
        if (
            is_op(addition, "Add")
            and mapped_by(addition) is node.outputs[0]
            and why_not_affine(addition, channels=weight.shape[1], rank=2) is None
        ):
            return _Product(node, addition)
        return _Product(node)

    def check(self, match: _Product) -> str | None:
        """Allow a weight of its own, rows that are not transposed, and the types that Gemm has kernels for."""
        node = match.product
        if refusal := why_not_foldable(node):
            return refusal
        if int_attribute(node, "transA", 0):
            return "it transposes its input"
        if node.graph is not None and opset_of(node.graph) < 7:
            return "Gemm broadcasts as opsets before 7 do"
        weight = node.inputs[1]
        if weight is None or weight.dtype not in _DTYPES:
            return f"it multiplies {type_in_words(weight)}, which Gemm has no kernels for"
        return why_not_storable(node, *_linear(match))

    def rewrite(self, match: _Product) -> None:
        """Put a Gemm in the place of a MatMul, then transpose its weight and gather its bias."""
        gemm, (weight, bias) = match.product, _linear(match)
        if is_op(gemm, "MatMul"):
            gemm = _replaced(match)
        gemm.attributes.add(ir.AttrInt64("transB", 1))
        set_weights(gemm, weight, bias, name=str(gemm.outputs[0].name))


def _replaced(match: _Product) -> ir.Node:
    """Put a Gemm, with the weight as it is, in the place of a MatMul and its addition, and return it."""
    node, graph = match.product, graph_of(match.product)
    last = match.addition or node
    gemm = ir.node("Gemm", node.inputs, name=last.name, metadata_props=dict(node.metadata_props))
    graph.insert_before(node, gemm)
    take_over(last.outputs[0], gemm.outputs[0])
    if match.addition is not None:
        graph.remove(node, safe=True)
    return gemm


def _linear(match: _Product) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight ``W`` and the bias ``b`` of ``x Wᵀ + b``, in float64."""
    weight, bias = weights_of(match.product)
    if match.addition is not None:
        bias = affine_of(match.addition, channels=len(bias), rank=2).shift
    return weight if int_attribute(match.product, "transB", 0) else weight.T, bias
