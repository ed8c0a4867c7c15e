"""``rexport tune``: the fastest way to run a model here, as deployment settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.choices import Goal
from rexport.cli._calibration import RecoverChoice
from rexport.cli._gate import EvalData
from rexport.cli._options import (
    ACCURACY,
    Json,
    Output,
    SkipBad,
    complete_runtime,
    parse_counts,
    parse_words,
)

__all__ = ["EXAMPLES", "tune"]

EXAMPLES = (
    "rexport tune resnet50.onnx -o resnet50.toml",
    "rexport tune resnet50.onnx --data pictures --latency-bound 60 -o resnet50.toml",
    "rexport tune resnet50.onnx --data pictures --eval-data val --max-drop 0.5 --goal latency -o resnet50.toml",
)
_CANDIDATES = "What to try"


def tune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file, float or INT8.", show_default=False)
    ],
    output: Output,
    goal: Annotated[Goal, typer.Option(help="Most images per second, or the shortest median call.")] = Goal.THROUGHPUT,
    latency_bound: Annotated[
        float | None,
        typer.Option("--latency-bound", metavar="MS", help="The longest p90 that is allowed, in milliseconds."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Images to calibrate INT8 files of a float model with, as `rexport quantize` does."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="About how long to measure.", show_default="5 for each candidate and 30 for the finalists"),
    ] = None,
    model_out: Annotated[
        Path | None,
        typer.Option(
            "--model-out", help="Where to write the model if it had to be made.", show_default="SETTINGS-tuned.onnx"
        ),
    ] = None,
    as_json: Json = False,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME,...",
            help="Runtimes.",
            show_default="cpu, and openvino if installed",
            rich_help_panel=_CANDIDATES,
            autocompletion=complete_runtime,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Batch sizes.", show_default="1,2,4,8,16; 1 for latency", rich_help_panel=_CANDIDATES
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Numbers of threads.",
            show_default="1, 2, 4 … up to one per core",
            rich_help_panel=_CANDIDATES,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32,int8", help="Precisions.", show_default="both with --data", rich_help_panel=_CANDIDATES
        ),
    ] = None,
    regroup: Annotated[
        str,
        typer.Option(
            metavar="off,measure",
            help="Grouped convolutions: unchanged, or in the forms that are fastest here.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = "off,measure",
    eval_data: EvalData = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="The most top-1 that INT8 may lose on --eval-data, in percentage points.",
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    recover: RecoverChoice = None,
    samples: Annotated[
        int, typer.Option(min=1, help="The most images of --data to calibrate with.", rich_help_panel=ACCURACY)
    ] = 512,
    skip_bad: SkipBad = False,
) -> None:
    """Find the fastest runtime, batch size, threads and precision for MODEL here, and save them as settings.

    The candidates are measured in turns: all of them briefly, the better half again and longer, and the last four
    together for longest. If two can't be told apart, fewer threads, smaller batches and the original file are
    preferred. If none meets the bounds, nothing is written and the exit code is 4. `rexport bench --settings` measures
    the settings again.
    """
    from rexport._progress import progress_bar
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
    result = run(request, progress=progress_bar, note=_console.note)
    if as_json:
        _console.print_json(result.to_json())
    else:
        print_result(result)
    result.require()
