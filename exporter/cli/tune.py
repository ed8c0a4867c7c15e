"""``rexport tune``: what runs a model best here, as deployment settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.choices import Goal
from rexport.cli._calibration import RecoverChoice
from rexport.cli._gate import EvalData
from rexport.cli._options import Json, Output, SkipBad, parse_counts, parse_words

__all__ = ["tune"]


def tune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file, float or INT8.", show_default=False)
    ],
    output: Output,
    goal: Annotated[Goal, typer.Option(help="The most images per second, or the shortest call.")] = Goal.THROUGHPUT,
    latency_bound: Annotated[
        float | None,
        typer.Option("--latency-bound", metavar="MS", help="What nine calls of ten have to keep within, in ms."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Images to make INT8 files of a float model with, as `rexport quantize` does."),
    ] = None,
    eval_data: EvalData = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", metavar="POINTS", help="The percentage points of top-1 that INT8 may lose on --eval-data."
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="Runtimes, such as cpu,openvino.", show_default="the installed ones of these two")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes.", show_default="1,2,4,8,16, and 1 for latency")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of threads.", show_default="1, 2, 4 … one per core")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32,int8", help="Precisions.", show_default="both with --data")
    ] = None,
    regroup: Annotated[
        str,
        typer.Option(metavar="off,measure", help="Grouped convolutions as they are, in the forms that are fastest."),
    ] = "off,measure",
    samples: Annotated[int, typer.Option(min=1, help="How many images of --data to use.")] = 512,
    recover: RecoverChoice = None,
    skip_bad: SkipBad = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="How long to measure, about.", show_default="5 for each candidate and 30 for the last ones"),
    ] = None,
    model_out: Annotated[
        Path | None,
        typer.Option(
            "--model-out", help="Where to write the file if it had to be made.", show_default="NAME-tuned.onnx"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what runs MODEL best on this machine, and write it down as deployment settings.

    Runtimes, batches, numbers of threads, precisions and regrouping are measured against each other, in turns: all
    shortly, the better half again, and the last four together for longest. Between what can't be told apart, fewer
    threads, smaller batches and the file that came in win. If nothing keeps within the bounds, none are
    written, and the exit code is 4.
    """
    from rexport.cli import _console
    from rexport.cli._tune_report import print_result
    from rexport.jobs.tune import TuneRequest, run

    request = TuneRequest(
        model=model,
        output=output,
        model_output=model_out,
        goal=goal,
        latency_bound_ms=latency_bound,
        data=data,
        eval_data=eval_data,
        max_drop=max_drop,
        runtimes=parse_words(on),
        batches=parse_counts("--batch", batch),
        threads=parse_counts("--threads", threads),
        precisions=parse_words(precision),
        regroup=parse_words(regroup),
        samples=samples,
        recovery=recover,
        skip_bad=skip_bad,
        seconds=seconds,
    )
    result = run(request, progress=_console.progress, note=_console.note)
    if as_json:
        _console.print_json(result.to_json())
    else:
        print_result(result)
    result.require()
