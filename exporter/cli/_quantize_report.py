"""What ``rexport quantize`` prints of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._words import in_units
from rexport.cli._console import print_table, print_text
from rexport.cli._gate import print_gate
from rexport.cli._reports import size_of
from rexport.cli._tuning import print_forms

if TYPE_CHECKING:
    from rexport.jobs.calibration import RecoveryResult
    from rexport.jobs.quantize import QuantizeResult

__all__ = ["print_quantized"]


def print_quantized(result: QuantizeResult) -> None:
    """Print the file, if one was written, what it rests on, and what was shown of it."""
    import numpy as np

    request, target = result.request, result.request.target
    float_layers = [layer for layer in result.layers if layer.precision != "int8"]
    if result.size is not None:
        integer = len(result.layers) - len(float_layers)
        print_text(
            f"{request.output}: {in_units(result.size)} (from {size_of(request.model)}), {integer} of "
            f"{len(result.layers)} layers in INT8"
        )
    print_text(
        f"target {target.name}: {np.dtype(target.activations.dtype)} activations, int8 weights in "
        f"±{target.weights.high}: {target.because}"
    )
    print_text(f"calibrated on {result.table.images} images, {request.calibrator}")
    if request.save_table is not None:
        print_text(f"{request.save_table}: the calibration table, for --table")
    _print_recovery(result.recovery)
    if result.gate is not None:
        print_gate(result.gate)
    if result.forms is None:
        return
    print_text("not verified (--no-verify)" if result.proof is None else f"{result.proof.verdict}: {result.proof}")
    if result.repaired:
        print_text(
            f"kept in float, because {target.runtime} computes them differently from the file: "
            f"{', '.join(result.repaired)}"
        )
    if result.speed is not None:
        print_text(f"speed: {result.speed} as FP32 here")
    print_forms(result.forms)
    if float_layers:
        print_table(
            ["float layer", "operator", "precision", "reason"],
            [[layer.name, layer.op_type, layer.precision, layer.why] for layer in float_layers],
            left=(0, 1, 2, 3),
        )


def _print_recovery(recovery: RecoveryResult) -> None:
    """Print the accuracy recovery, and how long it took."""
    if recovery.recovered is None:
        return
    images = f" ({recovery.images} images)" if recovery.images else ""
    print_text(f"recovery: {recovery.recovered}{images}, {recovery.seconds:.1f} s")
