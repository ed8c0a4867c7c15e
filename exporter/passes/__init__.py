"""Graph passes over onnx_ir, one per file, and their default order."""

from __future__ import annotations

from rexport.passes._base import GraphPass, PassReport, PassResult, Refusal, RewritePass
from rexport.passes.average_pool_to_global import AveragePoolToGlobal
from rexport.passes.clip_to_relu import ClipToRelu
from rexport.passes.fold_constants import FoldConstants
from rexport.passes.fuse import DEFAULT_PASSES, QUANTIZATION_PASSES, FuseResult, fuse
from rexport.passes.fuse_batch_norm_conv import FuseBatchNormConv
from rexport.passes.fuse_clips import FuseClips
from rexport.passes.fuse_conv_batch_norm import FuseConvBatchNorm
from rexport.passes.fuse_pad_conv import FusePadConv
from rexport.passes.fuse_pad_max_pool import FusePadMaxPool
from rexport.passes.fuse_transpose_gemm import FuseTransposeGemm
from rexport.passes.fuse_transposes import FuseTransposes
from rexport.passes.gemm_to_conv import GemmToConv
from rexport.passes.mat_mul_to_gemm import MatMulToGemm
from rexport.passes.merge_branches import MergeBranches
from rexport.passes.move_transposes import MoveTransposes
from rexport.passes.reduce_mean_to_global_average_pool import ReduceMeanToGlobalAveragePool
from rexport.passes.registry import available_passes, choose_passes
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.remove_no_ops import RemoveNoOps
from rexport.passes.remove_redundant_relu import RemoveRedundantRelu
from rexport.passes.reshape_to_flatten import ReshapeToFlatten
from rexport.passes.share_duplicates import ShareDuplicates
from rexport.passes.subsample_to_conv import SubsampleToConv
from rexport.passes.sum_to_add import SumToAdd
from rexport.passes.verify import Reference, verify_equal

__all__ = [
    "DEFAULT_PASSES",
    "QUANTIZATION_PASSES",
    "AveragePoolToGlobal",
    "ClipToRelu",
    "FoldConstants",
    "FuseBatchNormConv",
    "FuseClips",
    "FuseConvBatchNorm",
    "FusePadConv",
    "FusePadMaxPool",
    "FuseResult",
    "FuseTransposeGemm",
    "FuseTransposes",
    "GemmToConv",
    "GraphPass",
    "MatMulToGemm",
    "MergeBranches",
    "MoveTransposes",
    "PassReport",
    "PassResult",
    "ReduceMeanToGlobalAveragePool",
    "Reference",
    "Refusal",
    "RemoveIdentity",
    "RemoveNoOps",
    "RemoveRedundantRelu",
    "ReshapeToFlatten",
    "RewritePass",
    "ShareDuplicates",
    "SubsampleToConv",
    "SumToAdd",
    "available_passes",
    "choose_passes",
    "fuse",
    "verify_equal",
]
