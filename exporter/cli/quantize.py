"""``rexport quantize``: an INT8 file from a float one and some images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._calibration import (
    Address,
    CalibratorChoice,
    EngineChoice,
    OptionalData,
    SaveTable,
    Tables,
    Where,
    Workers,
)
from rexport.cli._gate import EvalData, MaxDrop, MinSpeedup
from rexport.cli._options import Json, Mean, Output, Resize, SkipBad, Std, Threads
from rexport.cli._paths import READ
from rexport.cli._recovery import RecoverChoice
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["quantize"]


def quantize(
    model: Annotated[Path, READ, typer.Argument(metavar="MODEL.onnx", help="A float ONNX file.", show_default=False)],
    output: Output,
    data: OptionalData = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="x86|arm|openvino|tensorrt", help="What will run it; by default what this machine is."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="int8|int8+fp16", help="With float16 for what is not INT8, or float32.")
    ] = "int8",
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits instead of 8; by default where this CPU has no VNNI.",
            show_default=False,
        ),
    ] = None,
    calibrator: CalibratorChoice = "minmax",
    recover: RecoverChoice = None,
    samples: Annotated[int, typer.Option(min=1, help="How many images to use, evenly spread over the classes.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    table: Tables = None,
    save_table: SaveTable = None,
    engine: EngineChoice = Where.LOCAL,
    workers: Workers = None,
    address: Address = None,
    eval_data: EvalData = None,
    max_drop: MaxDrop = None,
    min_speedup: MinSpeedup = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize MODEL to INT8 with the ranges that its tensors take on some images.

    The model is fused first. Activations have one scale per tensor, weights one per output channel. Memory does not
    grow with the number of images. A run that was interrupted goes on where it was. If the accuracy that is asked for
    takes it, layers are left in float; if that can't be had, no file is written, and the exit code is 4.
    """
    from rexport._cpu import this_cpu
    from rexport._files import check_writable
    from rexport.cli._calibration import Calibration
    from rexport.cli._console import print_json
    from rexport.cli._gate import Gate
    from rexport.cli._options import report_skipped
    from rexport.cli._quantizing import Asked
    from rexport.cli._recovery import Recovering
    from rexport.cli._tuning import Tuning

    check_writable(output)
    tuning = Tuning.parse(regroup, stem, batch=for_batch, threads=threads)

    from rexport.quantization import target_for

    calibration = Calibration.parse(
        calibrator,
        data=data,
        tables=table,
        save_table=save_table,
        samples=samples,
        batch=batch,
        skip_bad=skip_bad,
        where=engine,
        workers=workers,
        threads=threads,
        address=address,
    )
    asked = Asked(
        model=model,
        output=output,
        target=target_for(target, this_cpu(), reduce_range=reduce_range, precision=precision),
        precision=precision,
        calibration=calibration,
        recovery=Recovering.parse(recover, calibration),
        gate=Gate.parse(eval_data, max_drop, min_speedup, skip_bad=skip_bad, batch=for_batch, threads=threads),
        tuning=tuning,
        resize=resize,
        mean=mean,
        std=std,
    )
    quantized = asked.quantize()
    report_skipped(quantized.skipped)
    if quantized.gate is not None and quantized.gate.why_not is not None:
        print_json(quantized.document()) if as_json else quantized.print()
        quantized.gate.require()
    finished = quantized.finish()
    finished.note_float_convolutions()
    print_json(finished.document()) if as_json else finished.print()
