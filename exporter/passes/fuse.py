"""Running the passes over a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from rexport.passes._graph import is_op
from rexport.passes.fold_constants import FoldConstants
from rexport.passes.fuse_batch_norm_conv import FuseBatchNormConv
from rexport.passes.fuse_conv_batch_norm import FuseConvBatchNorm
from rexport.passes.reduce_mean_to_global_average_pool import ReduceMeanToGlobalAveragePool
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.reshape_to_flatten import ReshapeToFlatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.passes._base import GraphPass, PassReport

__all__ = ["DEFAULT_PASSES", "FuseResult", "fuse"]

DEFAULT_PASSES: tuple[type[GraphPass], ...] = (
    FoldConstants,
    RemoveIdentity,
    FuseConvBatchNorm,
    FuseBatchNormConv,
    ReduceMeanToGlobalAveragePool,
    ReshapeToFlatten,
)


@dataclass(frozen=True, kw_only=True)
class FuseResult:
    """The fused ``model``, and what each pass did, in the order they ran."""

    model: ir.Model
    reports: tuple[PassReport, ...]


def fuse(model: ir.Model, *, passes: Sequence[type[GraphPass]] = DEFAULT_PASSES) -> FuseResult:
    """Return a fused copy of ``model``; the model itself is left as it was (weights that stay are shared).

    The names of the model's inputs and outputs, its metadata and its opset stay. Any ONNX model will do.
    """
    fused = model.clone()
    _own_constants(fused)
    reports = tuple(one_pass()(fused).report for one_pass in passes)
    common.RemoveUnusedNodesPass()(fused)
    return FuseResult(model=fused, reports=reports)


def _own_constants(clone: ir.Model) -> None:
    """Give the Constant nodes of a clone tensors of their own: lifted to initializers, they take new names."""
    scopes: tuple[ir.Graph | ir.Function, ...] = (clone.graph, *clone.functions.values())
    for scope in scopes:
        for node in scope.all_nodes():
            value = node.attributes.get("value") if is_op(node, "Constant") else None
            if value is not None and value.type == ir.AttributeType.TENSOR and not value.is_ref():
                shared = value.as_tensor()
                if shared.dtype != ir.DataType.STRING:
                    node.attributes.add(
                        ir.AttrTensor("value", ir.Tensor(shared.numpy(), dtype=shared.dtype, name=shared.name))
                    )
