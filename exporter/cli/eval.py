"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._calibration import OldAddress, OldEngine, WorkersChoice, parse_workers
from rexport.cli._gate import MetricFunction
from rexport.cli._options import (
    ACCURACY,
    ADVANCED,
    PICTURES,
    Data,
    Json,
    LayoutChoice,
    Mean,
    Resize,
    Size,
    SkipBad,
    Std,
    Threads,
    Weights,
    complete_runtime,
)

__all__ = ["EXAMPLES", "eval"]

EXAMPLES = (
    "rexport eval resnet50.onnx --data test --per-class --worst 20",
    "rexport eval resnet50-int8.onnx --data test --reference resnet50.onnx",
    "rexport eval cifar_resnet20 --weights best.pt --data test --json",
)


def eval(  # noqa: A001
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, an engine, or a network's name with --weights.", show_default=False
        ),
    ],
    data: Data,
    weights: Weights = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="An ONNX file to compare with, such as the float model.", show_default=False),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="The runtime, such as cpu, openvino, cuda or tensorrt.",
            show_default="cpu, or that of an INT8 file's target; torch for networks, TensorRT for engines",
            autocompletion=complete_runtime,
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Use only this many images, evenly spread.", show_default=False)
    ] = None,
    as_json: Json = False,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per-class",
            help="Show the accuracy of each class and the confusions; with --json, the confusion matrix.",
            rich_help_panel=ACCURACY,
        ),
    ] = False,
    worst: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="List the N most confident mistakes.", show_default=False, rich_help_panel=ACCURACY
        ),
    ] = 0,
    metric: MetricFunction = None,
    find_divergence: Annotated[
        bool,
        typer.Option(
            "--find-divergence",
            help="Find the first layer that differs from --reference, or from MODEL computed node by node.",
            rich_help_panel=ACCURACY,
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a report with the confusion matrix and the most confident mistakes, as one file.",
            show_default=False,
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    crops: Annotated[
        int,
        typer.Option(
            metavar="1|10",
            help="Average over 10 crops: corners, centre, and their mirror images.",
            rich_help_panel=PICTURES,
        ),
    ] = 1,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS,...",
            help="Average over whole pictures resized to these shorter sides, such as 224,256,384,480,640.",
            show_default=False,
            rich_help_panel=PICTURES,
        ),
    ] = None,
    size: Size = None,
    layout: LayoutChoice = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.", rich_help_panel=ADVANCED)] = 32,
    workers: WorkersChoice = "local",
    engine: OldEngine = None,
    address: OldAddress = None,
    threads: Threads = None,
) -> None:
    """Measure MODEL's top-1 and top-5 on labelled images, or its agreement with --reference on any images.

    Of files that are no classifiers of pictures, all outputs are compared with --reference's, or --metric judges them.

    The result is the same for any --workers. INT8 files for TensorRT run node by node on the CPU unless --on says
    otherwise.
    """
    from rexport._progress import progress_bar
    from rexport.calibration import parse_views
    from rexport.cli._console import note, print_json
    from rexport.cli._eval_report import print_evaluation, print_outputs
    from rexport.jobs.evaluate import EvaluateRequest, EvaluateResult, run
    from rexport.preprocessing import PictureOptions

    request = EvaluateRequest(
        model=model,
        data=data,
        weights=weights,
        reference=reference,
        runtime=on,
        find_divergence=find_divergence,
        views=parse_views(crops=crops, scales=scales),
        batch=batch,
        samples=samples,
        per_class=per_class,
        worst=worst,
        skip_bad=skip_bad,
        options=PictureOptions.parse(size=size, layout=layout, resize=resize, mean=mean, std=std),
        workers=parse_workers(workers, engine=engine, address=address, threads=threads),
        threads=threads,
        metric=metric,
        html=report,
        command=shlex.join(["rexport", *sys.argv[1:]]),
    )
    result = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(result.to_json())
    elif isinstance(result, EvaluateResult):
        print_evaluation(result)
    else:
        print_outputs(result)
