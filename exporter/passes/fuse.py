"""Running the passes over a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx_ir.passes import common

from rexport.passes.fold_constants import FoldConstants
from rexport.passes.fuse_batch_norm_conv import FuseBatchNormConv
from rexport.passes.fuse_conv_batch_norm import FuseConvBatchNorm
from rexport.passes.reduce_mean_to_global_average_pool import ReduceMeanToGlobalAveragePool
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.reshape_to_flatten import ReshapeToFlatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

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
    reports = tuple(one_pass()(fused).report for one_pass in passes)
    common.RemoveUnusedNodesPass()(fused)
    return FuseResult(model=fused, reports=reports)
