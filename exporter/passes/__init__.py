"""Graph passes over onnx_ir, one per file, and their default order."""

from __future__ import annotations

from rexport.passes._base import GraphPass, PassReport, PassResult, Refusal, RewritePass
from rexport.passes.fold_constants import FoldConstants
from rexport.passes.fuse import DEFAULT_PASSES, FuseResult, fuse
from rexport.passes.fuse_batch_norm_conv import FuseBatchNormConv
from rexport.passes.fuse_conv_batch_norm import FuseConvBatchNorm
from rexport.passes.merge_branches import MergeBranches
from rexport.passes.reduce_mean_to_global_average_pool import ReduceMeanToGlobalAveragePool
from rexport.passes.registry import available_passes, choose_passes
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.reshape_to_flatten import ReshapeToFlatten
from rexport.passes.verify import Reference, verify_equal

__all__ = [
    "DEFAULT_PASSES",
    "FoldConstants",
    "FuseBatchNormConv",
    "FuseConvBatchNorm",
    "FuseResult",
    "GraphPass",
    "MergeBranches",
    "PassReport",
    "PassResult",
    "ReduceMeanToGlobalAveragePool",
    "Reference",
    "Refusal",
    "RemoveIdentity",
    "ReshapeToFlatten",
    "RewritePass",
    "available_passes",
    "choose_passes",
    "fuse",
    "verify_equal",
]
