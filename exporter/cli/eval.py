"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._calibration import OldAddress, OldEngine, WorkersChoice, parse_workers
from rexport.cli._options import Data, Json, Mean, Resize, SkipBad, Std, Threads, Weights

__all__ = ["eval"]


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
        Path | None, typer.Option(help="An ONNX file to compare with, such as the float model.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="What runs MODEL, such as openvino, cuda or tensorrt.",
            show_default="cpu, or what an INT8 file is for; torch for a network, TensorRT for an engine",
        ),
    ] = None,
    find_divergence: Annotated[
        bool,
        typer.Option(
            "--find-divergence", help="Find the first layer that differs from --reference, or from MODEL itself."
        ),
    ] = False,
    crops: Annotated[
        int, typer.Option(metavar="1|10", help="10 averages over the corners, the middle, and their mirror images.")
    ] = 1,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS,...",
            help="Average over whole pictures, resized to these lengths of the shorter side: the ResNet paper takes "
            "224,256,384,480,640.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    samples: Annotated[int | None, typer.Option(min=1, help="Only so many images, evenly spread.")] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    workers: WorkersChoice = "local",
    engine: OldEngine = None,
    address: OldAddress = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure MODEL's top-1 and top-5 on labelled images, or its agreement with --reference on any.

    An ONNX file runs on ONNX Runtime's CPU provider, or --on another runtime, a network on PyTorch, an engine on
    TensorRT. An INT8 file for OpenVINO runs there, and one for TensorRT node by node, as it says. Several crops or
    scales of a picture give the average of their class probabilities. Whoever runs the images of a file, the result is
    the same. --find-divergence names the first layer that differs from --reference, or from MODEL itself, computed node
    by node.
    """
    from rexport.calibration import parse_views
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._eval_report import print_evaluation
    from rexport.jobs.evaluate import EvaluateRequest, run
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
        skip_bad=skip_bad,
        options=PictureOptions.parse(resize=resize, mean=mean, std=std),
        workers=parse_workers(workers, engine=engine, address=address, threads=threads),
        threads=threads,
    )
    result = run(request, progress=progress, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        print_evaluation(result)
