"""``--eval-data``, ``--max-drop`` and ``--min-speedup``: what an INT8 model must not lose, and what it has to gain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import UsageError
from rexport.cli._paths import READ_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from rexport.calibration import Dataset
    from rexport.quantization import QuantizeResult
    from rexport.tuning import Comparison, GatePoint, GateResult

__all__ = ["EvalData", "Gate", "MaxDrop", "MinSpeedup", "gate_json", "print_gate", "print_speed", "speed_json"]

EvalData = Annotated[
    Path | None,
    READ_IMAGES,
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


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What was asked for: ``max_drop`` is infinite where accuracy is only to be measured; ``batch`` is for speeds."""

    eval_data: Path | None
    max_drop: float
    min_speedup: float | None
    skip_bad: bool
    batch: int | None
    threads: int | None

    @classmethod
    def parse(
        cls,
        eval_data: Path | None,
        max_drop: float | None,
        min_speedup: float | None,
        *,
        skip_bad: bool = False,
        batch: int | None = None,
        threads: int | None = None,
    ) -> Gate:
        """Check what was asked for.

        Raises:
            UsageError: The options do not go together, or a number makes no sense.
        """
        if max_drop is not None and eval_data is None:
            raise UsageError("--max-drop needs labelled images to measure with; pass --eval-data DIR too.")
        if max_drop is not None and not 0 <= max_drop <= 100:
            raise UsageError(f"--max-drop {max_drop:g}: it is percentage points from 0 to 100, such as 0.5.")
        if min_speedup is not None and not 0 < min_speedup < math.inf:
            raise UsageError(f"--min-speedup {min_speedup:g}: it is larger than zero, such as 1.0.")
        return cls(
            eval_data=eval_data,
            max_drop=math.inf if max_drop is None else max_drop,
            min_speedup=min_speedup,
            skip_bad=skip_bad,
            batch=batch,
            threads=threads,
        )

    def mix(
        self,
        model: ir.Model,
        quantize_with: Callable[[frozenset[str]], QuantizeResult],
        images: Dataset | None,
        *,
        speeds: bool,
    ) -> GateResult | None:
        """Quantize with as few layers in float as the gate needs; ``None`` without ``images`` of ``eval_data``.

        Without ``speeds``, as for a file that another machine is to run, only accuracy is measured. The result may say
        that the gate does not hold: print it, then let it ``require()``.
        """
        if images is None:
            return None
        from rexport.cli._console import progress
        from rexport.tuning import Exam, conditions_for, mix_precision

        return mix_precision(
            model,
            quantize_with,
            Exam(dataset=images, skip_bad=self.skip_bad, threads=self.threads),
            max_drop=self.max_drop,
            conditions=conditions_for(model, batch=self.batch, threads=self.threads) if speeds else None,
            progress=progress,
        )

    def require_speed(self, model: ir.Model, quantized: ir.Model) -> Comparison | None:
        """Measure the speed of the file to write, if a speed-up was asked for.

        Raises:
            GateError: It is slower than that.
        """
        if self.min_speedup is None:
            return None
        from rexport.cli._console import progress
        from rexport.tuning import conditions_for, require_speedup

        return require_speedup(
            model,
            quantized,
            at_least=self.min_speedup,
            conditions=conditions_for(model, batch=self.batch, threads=self.threads),
            progress=progress,
        )


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


def gate_json(result: GateResult | None) -> dict[str, Any]:
    """Return the result for a JSON document: the key ``gate``."""
    if result is None:
        return {"gate": None}
    return {
        "gate": {
            "holds": result.why_not is None,
            "images": result.images,
            "fp32_top1": result.float_top1,
            "top1": result.chosen.top1,
            "drop_points": result.drop_of(result.chosen),
            "max_drop_points": _finite(result.max_drop),
            "float_layers": list(result.chosen.float_layers),
            "curve": [
                {
                    "float_layers": list(point.float_layers),
                    "float_share": point.float_share,
                    "top1": point.top1,
                    "sqnr_db": _finite(point.sqnr_db),
                    "speedup": point.comparison and point.comparison.speedup,
                    "speedup_interval": point.comparison and list(point.comparison.interval),
                }
                for point in result.points
            ],
            "sensitivities": [
                {"layer": layer.name, "op_type": layer.op_type, "sqnr_db": _finite(layer.sqnr_db), "cost": layer.cost}
                for layer in result.sensitivities
            ],
        }
    }


def print_speed(speed: Comparison | None) -> None:
    """Print the speed of the file, if it was measured."""
    if speed is not None:
        print(f"the file is {speed} as FP32 here")


def speed_json(speed: Comparison | None) -> dict[str, Any]:
    """Return the speed of the file for a JSON document: the keys ``speedup`` and ``speedup_interval``."""
    return {"speedup": speed and speed.speedup, "speedup_interval": speed and list(speed.interval)}


def _point_row(result: GateResult, point: GatePoint) -> list[str]:
    from rexport.cli._reports import percent

    return [
        str(len(point.float_layers)) + (" ←" if point == result.chosen else ""),
        f"{100 * point.float_share:.0f} %",
        percent(point.top1),
        f"{result.drop_of(point):.2f}",
        _db(point.sqnr_db),
        "–" if point.comparison is None else str(point.comparison),
    ]


def _db(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} dB" if math.isfinite(value) else "∞"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
