"""Whether the stem is faster with blocks of pixels as channels, by measuring the whole model both ways."""

from __future__ import annotations

from dataclasses import dataclass
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
    """The model that is to be used from now on.

    Attributes:
        model: The changed one if it is ``kept``, otherwise the one that came in.
        kept: Whether the changed model is the result.
        report: What the pass changed and refused.
        conditions: What was measured at; ``None`` if nothing was.
        comparison: The changed model against what came in, likewise.
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

    See :class:`rexport.passes.SpaceToDepthStem`; the arguments are those of :func:`rexport.tuning.regroup`.

    Args:
        model: It is left as it was.
        measure: Whether to keep the change only if the model is measured to be faster; it has one image input then.
        batch: Images a call, by default the model's own, or 1.
        threads: By default one per usable core.
        verify: Whether to run both models on random inputs and compare the results.
        progress: Told of measuring.

    Raises:
        UsageError: The model insists on another batch.
        ModelFileError: There is something to measure, and no image input.
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
    compared = compare(model, changed, conditions, progress=progress)
    return StemResult(
        model=changed if compared.is_faster else model,
        kept=compared.is_faster,
        report=report,
        conditions=conditions,
        comparison=compared,
    )
