"""``--precision fp16``: its options, the check of overflow on pictures, and what it says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._paths import READ_IMAGES

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.exporting.half import HalfResult

__all__ = ["OverflowData", "Precision", "PrecisionChoice", "half_json", "in_half", "print_half"]


class Precision(StrEnum):
    """What a float file computes in."""

    FP32 = "fp32"
    FP16 = "fp16"


PrecisionChoice = Annotated[
    Precision, typer.Option("--precision", metavar="fp32|fp16", help="What the file computes in; it takes float32.")
]
OverflowData = Annotated[
    Path | None,
    READ_IMAGES,
    typer.Option(
        "--data",
        help="Images, for fp16: layers whose numbers grow too large for it on them stay in float32.",
        show_default=False,
    ),
]

_SAMPLES = 64
_BATCH = 8


def in_half(model: ir.Model, data: Path | None) -> HalfResult:
    """Return a model that was exported in float16; layers that overflow on the images of ``data`` stay in float32."""
    from rexport.calibration import calibrate, open_dataset
    from rexport.cli._console import note, progress
    from rexport.exporting.half import to_half
    from rexport.model_file import Metadata, image_input

    if data is None:
        note("whether numbers grow too large for float16 was not checked; pass --data DIR with some images.")
        return to_half(model)
    preprocessing = Metadata.of(model).preprocessing
    assert preprocessing is not None  # the export wrote it
    dataset = open_dataset(data, preprocessing)
    batches = dataset.batches(image_input(model).batch or _BATCH, samples=_SAMPLES)
    total = min(_SAMPLES, len(dataset))
    table = calibrate(model, (one.images for one in batches), total=total, progress=progress)
    return to_half(model, largest={name: max(-seen.low, seen.high) for name, seen in table.tensors.items()})


def print_half(half: HalfResult, tolerance: float) -> None:
    """Say how close it is, what stayed in float32, and which weights became 0."""
    from rexport.cli._console import print_table

    print(f"float16: outputs differ from float32 by {half.difference:.1e} of their scale ({tolerance:.0e} allowed)")
    kept, vanished = half.conversion.kept, half.conversion.vanished
    if kept:
        rows = [[layer.name, layer.op_type, layer.why] for layer in kept]
        print_table(["float32 layer", "operator", "why"], rows, left=(0, 1, 2))
    if vanished:
        most = max(vanished, key=lambda name: vanished[name])
        print(
            f"{sum(vanished.values()):,} weights are too small for float16 and became 0, most of them in {most} "
            f"({vanished[most]:,})"
        )


def half_json(half: HalfResult | None) -> dict[str, Any]:
    """Return it for a JSON document."""
    if half is None:
        return {"precision": str(Precision.FP32)}
    return {
        "precision": str(Precision.FP16),
        "half": {
            "difference": half.difference,
            "float32_layers": [vars(layer) for layer in half.conversion.kept],
            "vanished": dict(half.conversion.vanished),
        },
    }
