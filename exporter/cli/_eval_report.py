"""What ``rexport eval`` tells of an evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rexport.calibration import Views
    from rexport.evaluation import Evaluation

__all__ = ["evaluation_json", "print_evaluation"]


def evaluation_json(model: str, reference: Path | None, views: Views, result: Evaluation) -> dict[str, object]:
    """Return the document of schema ``rexport.eval/1``."""
    from rexport.calibration import WholePictures

    scales = views.scales if isinstance(views, WholePictures) else None
    document: dict[str, object] = {
        "schema": "rexport.eval/1",
        "model": model,
        "images": result.images,
        "crops": None if scales else views.count,
        "scales": scales,
        "skipped": len(result.skipped),
        "top1": result.top1,
        "top1_interval": result.top1_interval,
        "top5": result.top5,
    }
    if result.comparison is not None:
        sqnr = result.comparison.sqnr_db
        document |= {
            "reference": str(reference),
            "reference_top1": result.comparison.reference_top1,
            "agreement": result.comparison.agreement,
            "scores": result.comparison.scores,
            "sqnr_db": sqnr if math.isfinite(sqnr) else None,
        }
    return document


def print_evaluation(model: str, reference: Path | None, views: Views, result: Evaluation) -> None:
    """Print accuracy, and agreement with the reference."""
    from rexport.cli._reports import percent

    print(f"{model} on {result.images} images{_in_words(views)}")
    if result.top1 is not None and result.top1_interval is not None:
        low, high = result.top1_interval
        right = round(result.top1 * result.images)
        print(f"top-1      {percent(result.top1)}  ({right} right; 95 % interval {percent(low)} to {percent(high)})")
    if result.top5 is not None:
        print(f"top-5      {percent(result.top5)}")
    if result.comparison is not None:
        comparison = result.comparison
        print(f"agreement  {percent(comparison.agreement)} of top-1 as {reference}")
        print(f"SQNR       {comparison.sqnr_db:.1f} dB of the {comparison.scores}")
        if result.top1 is not None and comparison.reference_top1 is not None:
            change = 100 * (result.top1 - comparison.reference_top1)
            print(f"change     {change:+.2f} points of top-1 (the reference has {percent(comparison.reference_top1)})")


def _in_words(views: Views) -> str:
    from rexport.calibration import TenCrops, WholePictures

    if isinstance(views, WholePictures):
        return f", whole, their shorter sides of {', '.join(map(str, views.scales))} pixels"
    return ", ten crops of each" if isinstance(views, TenCrops) else ""
