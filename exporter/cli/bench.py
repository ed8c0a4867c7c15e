"""``rexport bench``: how fast models run here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._bench_report import Compare, Markdown, MaxRegression, Report, Saved
from rexport.cli._limits import Layers, PeakOption, RemeasurePeak
from rexport.cli._options import (
    MEASURING,
    Json,
    Threads,
    complete_network,
    complete_runtime,
    parse_counts,
    parse_shapes,
    parse_words,
)
from rexport.cli._scenario import LatencyBound, Loadgen, ScenarioChoice, TrialSeconds

if TYPE_CHECKING:
    from rexport.jobs.bench import BenchReport

__all__ = ["EXAMPLES", "bench"]

EXAMPLES = (
    "rexport bench resnet50.onnx resnet50-int8.onnx --on cpu,openvino --batch 1,8 --data pictures",
    "rexport bench int8.onnx --scenario server --latency-bound 20 --batch 8",
    "rexport bench --from run.json --report run.html --compare last-week.json",
)


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files, engines or names of networks; the first is the baseline of the speed-ups.",
            show_default=False,
            autocompletion=complete_network,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME,...",
            help="Runtimes: cpu, openvino, torch, torch-compile, cuda, tensorrt, torch-cuda, torch-compile-cuda. "
            "Engines always run on their own TensorRT.",
            show_default="cpu for files, torch for networks",
            autocompletion=complete_runtime,
        ),
    ] = None,
    batch: Annotated[str | None, typer.Option(metavar="N,...", help="Batch sizes.", show_default="1,8")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images, DIR/<class>/<image>: adds top-1, and compares the models' outputs on them. Without "
            "it, outputs are compared on drawn pictures.",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Measure the model in these settings of `rexport tune`, on their runtime, threads and batch, and "
            "compare any MODELs with it.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[Path | None, typer.Option(hidden=True)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the run as JSON.")] = None,
    as_json: Json = False,
    report: Report = None,
    markdown: Markdown = None,
    saved: Saved = None,
    compare: Compare = None,
    max_regression: MaxRegression = None,
    scenario: ScenarioChoice = None,
    latency_bound: LatencyBound = None,
    seconds: TrialSeconds = None,
    loadgen: Loadgen = False,
    peak: PeakOption = False,
    remeasure_peak: RemeasurePeak = False,
    layers: Layers = False,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SHAPE",
            help="Shape of an input that is open, of a model that takes no pictures, such as x=1x80x3000; repeatable.",
            show_default=False,
            rich_help_panel=MEASURING,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="The most images of --data, evenly spread.", rich_help_panel=MEASURING)
    ] = 256,
    from_pixels: Annotated[
        bool,
        typer.Option("--from-pixels", help="Include normalizing the pixels in the time.", rich_help_panel=MEASURING),
    ] = False,
    on_device: Annotated[
        bool,
        typer.Option("--on-device", help="Leave out copying images to the device.", rich_help_panel=MEASURING),
    ] = False,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Minimum time to measure each row.", rich_help_panel=MEASURING)
    ] = 3.0,
    min_calls: Annotated[
        int, typer.Option(min=1, help="Minimum number of calls to time per row.", rich_help_panel=MEASURING)
    ] = 10,
    launches: Annotated[
        int,
        typer.Option(
            min=1,
            help="How often each process is started. 1 is quicker, but its intervals are too narrow.",
            rich_help_panel=MEASURING,
        ),
    ] = 5,
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds without an answer after which a model counts as hanging.", rich_help_panel=MEASURING
        ),
    ] = 120.0,
    threads: Threads = None,
) -> None:
    """Measure throughput and latency of models on the runtimes of this machine.

    Each model runs in processes and on cores of its own, and the models take turns, so that a drift of the machine
    affects all of them alike. The speed-up is over the first row of the same batch size, with its 95 % interval. The
    timed input is random; --on torch builds a file's network with random weights. p90 needs 64 calls and p99 662
    (--min-calls). Outputs are compared with the first model's, and wrong ones are marked. Ctrl-C keeps what was
    measured.
    """
    from rexport._progress import progress_bar
    from rexport.cli._console import note
    from rexport.cli._scenario import parse_scenario, say_trial
    from rexport.jobs.bench import BenchInterrupted, BenchRequest, run

    if profile is not None:
        note("--profile is called --settings now, and will be gone in the next version.")
    if as_json and markdown == "-":
        raise UsageError("--json and --markdown - both print to stdout; name a file for one of them.")
    request = BenchRequest(
        models=tuple(models or ()),
        saved=saved,
        settings=settings or profile,
        runtimes=parse_words(on) or None,
        batches=parse_counts("--batch", batch),
        threads=threads,
        data=data,
        samples=samples,
        shapes=parse_shapes(shapes),
        from_pixels=from_pixels,
        on_device=on_device,
        min_seconds=min_seconds,
        min_calls=min_calls,
        launches=launches,
        timeout=timeout,
        scenario=parse_scenario(scenario, latency_bound, seconds, loadgen=loadgen),
        peak=peak,
        remeasure_peak=remeasure_peak,
        layers=layers,
        compare=compare,
        max_regression=max_regression,
        output=output,
        html=report,
        markdown=None if markdown in (None, "-") else Path(markdown),
        command=shlex.join(["rexport", *sys.argv[1:]]),
    )
    try:
        result = run(request, progress=progress_bar, note=note, on_trial=say_trial)
    except BenchInterrupted as interrupted:
        _show(interrupted.report, as_json=as_json, as_markdown=markdown == "-")
        raise
    _show(result, as_json=as_json, as_markdown=markdown == "-")
    result.require()


def _show(report: BenchReport, *, as_json: bool, as_markdown: bool) -> None:
    from rexport.cli._bench_report import print_report
    from rexport.cli._console import print_json

    if as_json:
        print_json(report.to_json())
    elif as_markdown:
        print(report.to_markdown(), end="")
    else:
        print_report(report)
