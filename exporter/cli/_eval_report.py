"""What ``rexport eval`` prints of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cli._console import note, print_table
from rexport.cli._reports import percent

if TYPE_CHECKING:
    from rexport.calibration import Views
    from rexport.evaluation import DivergenceReport
    from rexport.evaluation.divergence import TensorRow
    from rexport.jobs.evaluate import EvaluateResult

__all__ = ["print_evaluation"]

_AGREEING = 0.9  # a share of images below which a model is hardly the reference's, quantized


def print_evaluation(result: EvaluateResult) -> None:
    """Print accuracy, agreement with the reference, and the first layer that differs."""
    evaluation, comparison, model = result.evaluation, result.evaluation.comparison, result.request.model
    print(f"{model} on {evaluation.images} images{_in_words(result.request.views)}")
    if evaluation.top1 is not None and evaluation.top1_interval is not None:
        low, high = map(percent, evaluation.top1_interval)
        right = round(evaluation.top1 * evaluation.images)
        print(f"top-1      {percent(evaluation.top1)}  ({right} right; 95 % interval {low} to {high})")
    if evaluation.top5 is not None:
        print(f"top-5      {percent(evaluation.top5)}")
    if comparison is not None:
        print(f"agreement  {percent(comparison.agreement)} of top-1 as {result.reference}")
        print(f"SQNR       {comparison.sqnr_db:.1f} dB of the {comparison.scores}")
        if evaluation.top1 is not None and comparison.reference_top1 is not None:
            change = 100 * (evaluation.top1 - comparison.reference_top1)
            print(f"change     {change:+.2f} points of top-1 (the reference has {percent(comparison.reference_top1)})")
    if result.divergence is not None:
        _print_divergence(result.divergence, f"{model} on {result.runtime} differs from {result.reference}")
    elif comparison is not None and comparison.agreement < _AGREEING:
        note("the two agree on few images; --find-divergence names the first layer that differs.")


def _in_words(views: Views) -> str:
    from rexport.calibration import TenCrops, WholePictures

    if isinstance(views, WholePictures):
        return f", whole, their shorter sides of {', '.join(map(str, views.scales))} pixels"
    return ", ten crops of each" if isinstance(views, TenCrops) else ""


def _print_divergence(report: DivergenceReport, compared: str) -> None:
    """Print the tensors that were looked at, and what came of it."""
    print()
    rows = [
        [
            row.tensor,
            f"{row.node} ({row.op_type})",
            f"{row.difference.sqnr_db:.1f} dB",
            _difference(row),
            "differs" if row.diverges else "",
        ]
        for row in report.rows
    ]
    print_table(["tensor", "computed by", "SQNR", "largest difference", ""], rows, left=(0, 1, 4))
    looked = f"{len(report.rows)} of {report.tensors} tensors were looked at"
    allowed = f"{report.arithmetic} explains an SQNR of {report.arithmetic.least_sqnr_db:g} dB and more of a layer"
    if report.arithmetic == "int8":
        allowed += ", and a step of integers"
    print(f"{looked}; {allowed}.")
    print(report.first or f"No layer of {compared} by more than that.")


def _difference(row: TensorRow) -> str:
    off = row.difference
    if off.other_steps:
        return "other steps"
    return f"{off.peak:.1e} of its scale" if off.steps is None else f"{off.steps:.1f} steps"
