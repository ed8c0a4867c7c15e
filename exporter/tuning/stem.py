"""Whether the stem is faster with blocks of pixels as channels, by measuring the whole model both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport._progress import Progress, silent
from rexport.passes import Reference
from rexport.passes.space_to_depth_stem import SpaceToDepthStem
from rexport.tuning.comparison import compare, conditions_for

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.passes import PassReport
    from rexport.tuning.comparison import Comparison
    from rexport.tuning.timings import Conditions

__all__ = ["StemResult", "block_stem"]


@dataclass(frozen=True, kw_only=True)
class StemResult:
    """The model to use from now on.

    Attributes:
        model: The changed one if it is ``kept``, otherwise the original.
        kept: Whether the changed model is the result.
        report: The changes and refusals of the pass.
        conditions: The conditions of the measurement; ``None`` without one.
        comparison: The changed model against the original, likewise.
    """

    model: ir.Model
    kept: bool
    report: PassReport
    conditions: Conditions | None = None
    comparison: Comparison | None = None


def block_stem(
    model: ir.Model,
    *,
    measure: bool = True,
    batch: int | None = None,
    threads: int | None = None,
    verify: bool = True,
    progress: Progress = silent,
) -> StemResult:
    """Let the first convolution of ``model``, float or quantized, read 2 × 2 blocks of pixels, where that is faster.

    See :class:`rexport.passes.SpaceToDepthStem`. With ``measure``, the change is kept only if the model, which has one
    image input then, is measured to be faster. The other arguments are those of :func:`rexport.tuning.regroup`.

    Raises:
        UsageError: The model has another fixed batch.
        ModelFileError: The model is measured and has no image input.
        VerificationError: The changed model's results differ (a defect of rexport).
    """
    changed = model.clone()
    report = SpaceToDepthStem()(changed).report
    if not report.changed:
        return StemResult(model=model, kept=False, report=report)
    if verify:
        Reference(model).difference(changed)
    if not measure:
        return StemResult(model=changed, kept=True, report=report)
    conditions = conditions_for(model, batch=batch, threads=threads)
    comparison = compare(model, changed, conditions, progress=progress)
    result = StemResult(model=changed, kept=True, report=report, conditions=conditions, comparison=comparison)
    if not comparison.is_faster:
        return replace(result, model=model, kept=False)
    return result
