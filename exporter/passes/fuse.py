"""Running the passes over a model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from rexport._onnx_proto import name_nodes
from rexport._words import first_line
from rexport.passes._base import PassReport
from rexport.passes._graph import is_op
from rexport.passes.average_pool_to_global import AveragePoolToGlobal
from rexport.passes.clip_to_relu import ClipToRelu
from rexport.passes.fold_constants import FoldConstants
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
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.remove_no_ops import RemoveNoOps
from rexport.passes.remove_redundant_relu import RemoveRedundantRelu
from rexport.passes.reshape_to_flatten import ReshapeToFlatten
from rexport.passes.rows_to_gemm import RowsToGemm
from rexport.passes.share_duplicates import ShareDuplicates
from rexport.passes.subsample_to_conv import SubsampleToConv
from rexport.passes.sum_to_add import SumToAdd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.passes._base import GraphPass
    from rexport.passes.verify import Reference

__all__ = ["DEFAULT_PASSES", "QUANTIZATION_PASSES", "FuseResult", "fuse"]

_ROUNDS = 4  # at most; a second one finds little, and a third was not seen to find anything

# Operators get the forms that later passes match, then layers are fused, then duplicates shared.
DEFAULT_PASSES: tuple[type[GraphPass], ...] = (
    FoldConstants,
    RemoveIdentity,
    FuseTransposes,
    MoveTransposes,
    ReduceMeanToGlobalAveragePool,
    AveragePoolToGlobal,
    ReshapeToFlatten,
    RemoveNoOps,
    SumToAdd,
    MatMulToGemm,
    GemmToConv,
    FuseTransposeGemm,
    FuseClips,
    ClipToRelu,
    RemoveRedundantRelu,
    SubsampleToConv,
    MergeBranches,
    FusePadConv,
    FusePadMaxPool,
    FuseConvBatchNorm,
    FuseBatchNormConv,
    ShareDuplicates,
)
_PRODUCTS = DEFAULT_PASSES.index(MatMulToGemm)
QUANTIZATION_PASSES: tuple[type[GraphPass], ...] = (
    *DEFAULT_PASSES[:_PRODUCTS],
    RowsToGemm,
    *DEFAULT_PASSES[_PRODUCTS:],
)
"""The same before a file is quantized: with forms that gain nothing in float, and have integer kernels."""


@dataclass(frozen=True, kw_only=True)
class FuseResult:
    """The fused ``model``, and what each pass did, in the order they run; the refusals are those of its last run."""

    model: ir.Model
    reports: tuple[PassReport, ...]


def fuse(
    model: ir.Model, *, passes: Sequence[type[GraphPass]] = DEFAULT_PASSES, reference: Reference | None = None
) -> FuseResult:
    """Return a fused copy of ``model``; the model itself stays as it was (both share the weights that do not change).

    The names of the model's inputs and outputs, its metadata and its opset stay; nodes without a name of their own get
    one, and weights are no inputs any more. Any ONNX model will do. The changes of one pass may be places for another,
    so the passes run again, in the same order, until none finds anything to change.

    Args:
        model: The model.
        passes: The passes to run, in order.
        reference: The results of ``model``. With them each pass is proven: one that changes the results by more than
            rounding is rolled back, as is one that fails in any case, and its report says why.
    """
    fused, reports = _copy(model), {one_pass: _nothing(one_pass) for one_pass in passes}
    proven: ir.Model | None = model  # equal to ``fused`` and apart from it; copied only when it is needed
    unchanged = 0
    for one_pass in itertools.chain.from_iterable([passes] * _ROUNDS):
        if unchanged == len(passes):
            break
        unchanged += 1
        so_far = reports[one_pass]
        if so_far.rolled_back is not None:
            continue
        proven = proven or _copy(fused)
        report = _run(one_pass, fused, reference)
        if report.rolled_back is not None:
            fused = _copy(proven)
        elif report.changed:
            proven, unchanged = None, 1
        changed, notes = so_far.changed + report.changed, so_far.notes + report.notes
        reports[one_pass] = replace(report, changed=changed, notes=notes)
    common.RemoveUnusedNodesPass()(fused)
    name_nodes(fused)
    return FuseResult(model=fused, reports=tuple(reports.values()))


def _nothing(one_pass: type[GraphPass]) -> PassReport:
    return PassReport(name=one_pass.__name__, summary=one_pass.summary, changed=0)


def _run(one_pass: type[GraphPass], model: ir.Model, reference: Reference | None) -> PassReport:
    """Run a pass, and say in its report whether its changes must be rolled back."""
    try:
        report = one_pass()(model).report
        if report.changed and reference is not None:
            reference.difference(model)
    except Exception as error:  # a pass may be anybody's
        cause = error.__cause__ if isinstance(error, ir.passes.PassError) else None
        return replace(_nothing(one_pass), rolled_back=first_line(cause or error))
    return report


def _copy(model: ir.Model) -> ir.Model:
    copy = model.clone()
    _own_constants(copy)
    return copy


def _own_constants(clone: ir.Model) -> None:
    """Give the Constant nodes of a clone tensors of their own: lifted to initializers, they take new names."""
    scopes: tuple[ir.Graph | ir.Function, ...] = (clone.graph, *clone.functions.values())
    for node in itertools.chain.from_iterable(scope.all_nodes() for scope in scopes):
        value = node.attributes.get("value")
        if not is_op(node, "Constant") or value is None or value.type != ir.AttributeType.TENSOR or value.is_ref():
            continue
        shared = value.as_tensor()
        if shared.dtype != ir.DataType.STRING:
            own = ir.Tensor(shared.numpy(), dtype=shared.dtype, name=shared.name)
            node.attributes.add(ir.AttrTensor("value", own))
