"""``rexport quantize``: an INT8 file from a float one and some images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._calibration import (
    CalibratorChoice,
    OldAddress,
    OldEngine,
    OptionalData,
    RecoverChoice,
    SaveTable,
    Tables,
    WorkersChoice,
    parse_workers,
)
from rexport.cli._gate import EvalData, MaxDrop, MinSpeedup
from rexport.cli._options import Json, Mean, Output, Resize, SkipBad, Std, Threads
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["quantize"]


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float ONNX file.", show_default=False)],
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
    workers: WorkersChoice = "local",
    engine: OldEngine = None,
    address: OldAddress = None,
    eval_data: EvalData = None,
    max_drop: MaxDrop = None,
    min_speedup: MinSpeedup = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the INT8 file against MODEL before it is written.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Quantize MODEL to INT8 with the ranges that its tensors take on some images.

    The model is fused first. Activations have one scale per tensor, weights one per output channel. Memory does not
    grow with the number of images. A run that was interrupted goes on where it was. The file is run against MODEL
    before it is written: one that is not usable is not (exit code 3). If the accuracy that is asked for takes it,
    layers are left in float; if that can't be had, no file is written, and the exit code is 4.
    """
    from rexport._cpu import this_cpu
    from rexport.calibration import Calibrator
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._quantize_report import print_quantized
    from rexport.cli._tuning import parse_forms
    from rexport.jobs.quantize import QuantizeRequest, run
    from rexport.preprocessing import PictureOptions
    from rexport.quantization import target_for

    request = QuantizeRequest(
        model=model,
        output=output,
        target=target_for(target, this_cpu(), reduce_range=reduce_range, precision=precision),
        data=data,
        tables=tuple(table or ()),
        save_table=save_table,
        calibrator=Calibrator.parse(calibrator),
        recovery=recover,
        samples=samples,
        batch=batch,
        skip_bad=skip_bad,
        options=PictureOptions.parse(resize=resize, mean=mean, std=std),
        workers=parse_workers(workers, engine=engine, address=address, threads=threads),
        threads=threads,
        eval_data=eval_data,
        max_drop=max_drop,
        min_speedup=min_speedup,
        forms=parse_forms(regroup, stem, batch=for_batch, threads=threads),
        verify=verify,
    )
    result = run(request, progress=progress, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        print_quantized(result)
    result.require()
