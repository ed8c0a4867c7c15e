"""``--eval-data``, ``--max-drop`` and ``--min-speedup``: what an INT8 model must not lose, and what it has to gain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rexport.tuning import GatePoint, GateResult

__all__ = ["EvalData", "MaxDrop", "MinSpeedup", "print_gate"]

EvalData = Annotated[
    Path | None,
    typer.Option(
        "--eval-data", help="Labelled images, a folder per class, to measure accuracy on.", show_default=False
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="The percentage points of top-1 that INT8 may lose on --eval-data; layers are left in float until it "
        "loses no more.",
        show_default=False,
    ),
]
MinSpeedup = Annotated[
    float | None,
    typer.Option(
        "--min-speedup", metavar="TIMES", help="How many times as fast as its float model the file has to be here."
    ),
]
_SHOWN = 10  # sensitivities in the text


def print_gate(result: GateResult) -> None:
    """Print accuracy, the curve if there is one, and the layers that decide."""
    from rexport.cli._console import print_table
    from rexport.cli._reports import percent

    chosen = result.chosen
    allowed = f", {result.max_drop:g} allowed" if math.isfinite(result.max_drop) else ""
    print(
        f"top-1 {percent(chosen.top1)} on {result.images} images, FP32 {percent(result.float_top1)}: "
        f"loses {result.drop_of(chosen):.2f} points{allowed}"
    )
    if chosen.float_layers:
        print(f"left in float for it: {', '.join(chosen.float_layers)}")
    if len(result.points) > 1:
        rows = [_point_row(result, point) for point in result.points]
        print_table(["float layers", "operations", "top-1", "loses", "SQNR", "speed of FP32"], rows, left=())
    if result.sensitivities:
        print_table(
            ["layer", "operator", "SQNR with it alone in INT8", "cost in float"],
            [
                [layer.name, layer.op_type, _db(layer.sqnr_db), f"{layer.cost:.3f}"]
                for layer in result.sensitivities[:_SHOWN]
            ],
            left=(0, 1),
        )


def _point_row(result: GateResult, point: GatePoint) -> list[str]:
    from rexport.cli._reports import NONE, percent

    return [
        str(len(point.float_layers)) + (" ←" if point == result.chosen else ""),
        f"{100 * point.float_share:.0f} %",
        percent(point.top1),
        f"{result.drop_of(point):.2f}",
        _db(point.sqnr_db),
        str(point.comparison or NONE),
    ]


def _db(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} dB" if math.isfinite(value) else "∞"
