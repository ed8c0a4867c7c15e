"""``rexport quantize``: an INT8 file from a float one, calibrated on images."""

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
from rexport.cli._gate import EvalData, MaxDrop, MetricFunction, MinSpeedup
from rexport.cli._options import (
    ADVANCED,
    CALIBRATION,
    Json,
    LayoutChoice,
    Mean,
    Output,
    Resize,
    Size,
    SkipBad,
    Std,
    Threads,
    complete_target,
)
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["EXAMPLES", "quantize"]

EXAMPLES = (
    "rexport quantize resnet50.onnx --data pictures -o resnet50-int8.onnx",
    "rexport quantize resnet50.onnx --data pictures --eval-data test --max-drop 0.5 -o resnet50-int8.onnx",
    "rexport quantize resnet50.onnx --table resnet50.table.json --target tensorrt -o resnet50-trt.onnx",
)


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float ONNX file.", show_default=False)],
    output: Output,
    data: OptionalData = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="x86|arm|openvino|tensorrt",
            help="Where the file will run.",
            show_default="this machine",
            autocompletion=complete_target,
        ),
    ] = None,
    as_json: Json = False,
    table: Tables = None,
    save_table: SaveTable = None,
    calibrator: CalibratorChoice = "minmax",
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of images to calibrate with, evenly spread over the classes.",
            rich_help_panel=CALIBRATION,
        ),
    ] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.", rich_help_panel=CALIBRATION)] = 4,
    workers: WorkersChoice = "local",
    engine: OldEngine = None,
    address: OldAddress = None,
    recover: RecoverChoice = None,
    eval_data: EvalData = None,
    max_drop: MaxDrop = None,
    metric: MetricFunction = None,
    min_speedup: MinSpeedup = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    size: Size = None,
    layout: LayoutChoice = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="int8|int8+fp16", help="Precision of the layers that are not INT8.", rich_help_panel=ADVANCED
        ),
    ] = "int8",
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="7-bit or 8-bit weights.",
            show_default="7-bit on x86 CPUs without VNNI",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    threads: Threads = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Compare the INT8 file with MODEL before it is written.",
            rich_help_panel=ADVANCED,
        ),
    ] = True,
) -> None:
    """Quantize MODEL to INT8, calibrated on images.

    MODEL is fused first. Activations get one scale per tensor, weights one per output channel. Memory use does not
    depend on the number of images, and an interrupted calibration resumes.

    The INT8 file is compared with MODEL before it is written; if it is unusable, no file is written and the exit code
    is 3. With --max-drop, layers stay in float until the accuracy holds; if it can't, no file is written and the exit
    code is 4.
    """
    from rexport._cpu import this_cpu
    from rexport._progress import progress_bar
    from rexport.calibration import Calibrator
    from rexport.cli._console import note, print_json
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
        options=PictureOptions.parse(size=size, layout=layout, resize=resize, mean=mean, std=std),
        workers=parse_workers(workers, engine=engine, address=address, threads=threads),
        threads=threads,
        eval_data=eval_data,
        max_drop=max_drop,
        metric=metric,
        min_speedup=min_speedup,
        forms=parse_forms(regroup, stem, batch=for_batch, threads=threads),
        verify=verify,
    )
    result = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        print_quantized(result)
    result.require()
