"""Running the passes over a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from rexport.passes._base import PassReport
from rexport.passes._graph import is_op
from rexport.passes.fold_constants import FoldConstants
from rexport.passes.fuse_batch_norm_conv import FuseBatchNormConv
from rexport.passes.fuse_conv_batch_norm import FuseConvBatchNorm
from rexport.passes.merge_branches import MergeBranches
from rexport.passes.reduce_mean_to_global_average_pool import ReduceMeanToGlobalAveragePool
from rexport.passes.remove_identity import RemoveIdentity
from rexport.passes.reshape_to_flatten import ReshapeToFlatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.passes._base import GraphPass
    from rexport.passes.verify import Reference

__all__ = ["DEFAULT_PASSES", "FuseResult", "fuse"]

DEFAULT_PASSES: tuple[type[GraphPass], ...] = (
    FoldConstants,
    RemoveIdentity,
    MergeBranches,
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


def fuse(
    model: ir.Model, *, passes: Sequence[type[GraphPass]] = DEFAULT_PASSES, reference: Reference | None = None
) -> FuseResult:
    """Return a fused copy of ``model``; the model itself is left as it was (weights that stay are shared).

    The names of the model's inputs and outputs, its metadata and its opset stay. Any ONNX model will do.

    Args:
        model: The model.
        passes: Which passes to run, in order.
        reference: The results of ``model``. With them each pass is proven: one that fails, or changes the results by
            more than rounding, is taken back, and its report says why.
    """
    fused = _copy(model)
    reports = []
    for one_pass in passes:
        if reference is None:
            reports.append(one_pass()(fused).report)
        else:
            fused, report = _run_proven(one_pass, fused, reference)
            reports.append(report)
    common.RemoveUnusedNodesPass()(fused)
    return FuseResult(model=fused, reports=tuple(reports))


def _run_proven(one_pass: type[GraphPass], model: ir.Model, reference: Reference) -> tuple[ir.Model, PassReport]:
    """Return the model that a pass gives, or the model as it was, and the report."""
    before = _copy(model)
    try:
        report = one_pass()(model).report
        if report.changed:
            reference.difference(model)
    except Exception as error:  # a pass may be anybody's
        cause = error.__cause__ if isinstance(error, ir.passes.PassError) else error
        lines = str(cause).strip().splitlines()
        why = lines[0] if lines else type(cause).__name__
        empty = PassReport(name=one_pass.__name__, summary=one_pass.summary, changed=0)
        return before, replace(empty, rolled_back=why)
    return model, report


def _copy(model: ir.Model) -> ir.Model:
    copy = model.clone()
    _own_constants(copy)
    return copy


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
