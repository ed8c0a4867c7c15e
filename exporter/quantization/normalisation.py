"""A BatchNormalization that could not be fused becomes a convolution of its own, which integer kernels run.

    y = γ / σ · x + (β − μ γ / σ)        weight (C, 1, 1, 1), bias (C,), one group per channel

As every channel has its own scale, its one weight is exact in integers. In pre-activation networks and DenseNets, such
nodes stand between integer layers, and in float they would cost more time than the integer layers save.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._batch_norm import affine_of, why_not_affine
from rexport.passes._graph import add_initializer, is_op, name_of, take_over

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["write_as_convolutions"]

_IMAGES = 4  # dimensions


def write_as_convolutions(graph: ir.Graph, *, keep_float: Collection[str] = frozenset()) -> None:
    """Write the BatchNormalization nodes of images as depthwise convolutions, but for those called ``keep_float``.

    Each keeps its name, and that of its result.
    """
    for node in list(graph):
        shape = node.outputs[0].shape
        if not is_op(node, "BatchNormalization") or shape is None or len(shape) != _IMAGES:
            continue
        if name_of(node) not in keep_float and why_not_affine(node) is None:
            _write(graph, node)


def _write(graph: ir.Graph, node: ir.Node) -> None:
    affine, name, result = affine_of(node), name_of(node), node.outputs[0]
    weight = add_initializer(graph, f"{name}.weight", affine.scale.astype(np.float32).reshape(-1, 1, 1, 1))
    bias = add_initializer(graph, f"{name}.bias", affine.shift.astype(np.float32))
    conv = ir.node("Conv", [node.inputs[0], weight, bias], {"group": len(affine.scale), "kernel_shape": [1, 1]})
    graph.insert_before(node, conv)
    take_over(result, conv.outputs[0])
    conv.name = name
