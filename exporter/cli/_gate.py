"""``--eval-data``, ``--max-drop`` and ``--min-speedup``: the accuracy and speed that an INT8 model must reach."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._words import NONE, percent
from rexport.cli._console import print_table, print_text
from rexport.cli._options import ACCURACY

if TYPE_CHECKING:
    from rexport.tuning import GatePoint, GateResult

__all__ = ["EvalData", "MaxDrop", "MetricFunction", "MinSpeedup", "print_gate"]

EvalData = Annotated[
    Path | None,
    typer.Option(
        "--eval-data",
        help="Measure accuracy on these labelled images, a folder per class.",
        show_default=False,
        rich_help_panel=ACCURACY,
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Largest loss of top-1 on --eval-data, in percentage points, or of --metric; layers stay in float until "
        "it holds.",
        show_default=False,
        rich_help_panel=ACCURACY,
    ),
]
MetricFunction = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="MODULE:FUNCTION",
        help="Your own metric, more is better: a function of batches, each with its outputs and labels.",
        show_default=False,
        rich_help_panel=ACCURACY,
    ),
]
MinSpeedup = Annotated[
    float | None,
    typer.Option(
        "--min-speedup",
        metavar="TIMES",
        help="Smallest speed-up over the float model on this machine, such as 1.5.",
        show_default=False,
        rich_help_panel=ACCURACY,
    ),
]
_SHOWN = 10  # sensitivities in the text


def print_gate(result: GateResult) -> None:
    """Print accuracy, the curve if there is one, and the layers that decide."""
    chosen = result.chosen
    limit = f" (limit {result.max_drop:g})" if math.isfinite(result.max_drop) else ""
    name, words, points = "top-1", percent, f"{result.drop_of(chosen):.2f} points"
    if result.metric is not None:
        name, words, points = result.metric, "{:.6g}".format, f"{result.drop_of(chosen):.4g}"
    scores = f"{words(chosen.score)} on {result.images} images, FP32 {words(result.float_score)}"
    print_text(f"{name} {scores}: loss {points}{limit}")
    if chosen.float_layers:
        print_text(f"kept in float for accuracy: {', '.join(chosen.float_layers)}")
    if len(result.points) > 1:
        rows = [_point_row(result, point) for point in result.points]
        print_table(["float layers", "float ops", name, "loss", "SQNR", "vs FP32"], rows, left=())
    if result.sensitivities:
        print_table(
            ["layer", "operator", "SQNR alone in INT8", "cost in float"],
            [
                [layer.name, layer.op_type, _db(layer.sqnr_db), f"{layer.cost:.3f}"]
                for layer in result.sensitivities[:_SHOWN]
            ],
            left=(0, 1),
        )


def _point_row(result: GateResult, point: GatePoint) -> list[str]:
    return [
        str(len(point.float_layers)) + (" ←" if point == result.chosen else ""),
        f"{100 * point.float_share:.0f} %",
        percent(point.score) if result.metric is None else f"{point.score:.6g}",
        f"{result.drop_of(point):.2f}",
        _db(point.sqnr_db),
        str(point.comparison or NONE),
    ]


def _db(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} dB" if math.isfinite(value) else "∞"
