"""A product with a constant matrix becomes Gemm in the one form that has INT8 kernels, x Wᵀ + b.

    x B              =  x Wᵀ          W = Bᵀ
    x B + k          =  x Wᵀ + k      k one number per output, or one for all
    α x B + β C      =  x Wᵀ + b      W = α Bᵀ (or α B, where it was transposed), b = β C, one number per output

It is what PyTorch writes for a Linear layer: W of shape (outputs, inputs), as a convolution has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._affine import affine_of, mapped_by, why_not_affine
from rexport.passes._base import RewritePass
from rexport.passes._conv import set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import constant, int_attribute, is_op, only_consumer, take_over

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

    summary = "MatMul, Add and any Gemm become x · Wᵀ + b"

    def match(self, node: ir.Node) -> _Product | None:
        """Match a MatMul of rows with a constant matrix, or a Gemm with one in any other form."""
        weight = constant(node.inputs[1]) if is_op(node, "MatMul", "Gemm") else None
        if weight is None or weight.ndim != 2:
            return None
        if is_op(node, "Gemm"):
            return None if _is_linear_layer(node) else _Product(node)
        rows = node.inputs[0]
        if rows is None or rows.shape is None or len(rows.shape) != 2:
            return None
        addition = only_consumer(node.outputs[0])
        is_bias = (
            is_op(addition, "Add")
            and addition is not None
            and mapped_by(addition) is node.outputs[0]
            and why_not_affine(addition, channels=weight.shape[1], rank=2) is None
        )
        return _Product(node, addition if is_bias else None)

    def check(self, match: _Product) -> str | None:
        """Allow a weight of its own, rows that are not transposed, and the types that Gemm has kernels for."""
        node = match.product
        why = why_not_foldable(node)
        if why is not None:
            return why
        if int_attribute(node, "transA", 0):
            return "it transposes its input"
        if node.graph is not None and opset_of(node.graph) < 7:
            return "Gemm broadcasts as opsets before 7 do"
        dtype = node.inputs[1].dtype if node.inputs[1] is not None else None
        if dtype not in _DTYPES:
            return f"it multiplies {dtype.name.lower() if dtype else 'an unknown type'}, which Gemm has no kernels for"
        return why_not_storable(node, *_linear(match))

    def rewrite(self, match: _Product) -> None:
        """Put a Gemm in the place of a MatMul, then transpose its weight and gather its bias."""
        gemm, (weight, bias) = match.product, _linear(match)
        if is_op(gemm, "MatMul"):
            gemm = _replaced(match)
        gemm.attributes.add(ir.AttrInt64("transB", 1))
        set_weights(gemm, weight, bias, name=str(gemm.outputs[0].name))


def _replaced(match: _Product) -> ir.Node:
    """Return a Gemm that stands, with the weight as it is, where a MatMul and its addition stood."""
    node, graph = match.product, match.product.graph
    last = match.addition or node
    assert graph is not None
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


def _is_linear_layer(gemm: ir.Node) -> bool:
    factors = [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    bias, weight = constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None, constant(gemm.inputs[1])
    is_vector = bias is None or weight is None or bias.shape == weight.shape[:1]
    transposed = [int_attribute(gemm, name, 0) for name in ("transA", "transB")]
    return factors == [1.0, 1.0] and transposed == [0, 1] and is_vector
