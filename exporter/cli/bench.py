"""``rexport bench``: how fast models run here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._bench_report import Compare, Markdown, MaxRegression, Report
from rexport.cli._limits import Layers, PeakOption, RemeasurePeak
from rexport.cli._options import Json, Threads, parse_counts, parse_words
from rexport.cli._scenario import LatencyBound, Loadgen, ScenarioChoice, TrialSeconds

if TYPE_CHECKING:
    from rexport.jobs.bench import BenchReport

__all__ = ["bench"]


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files, engines and names of networks; the first is the baseline.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME,...",
            help="cpu, openvino, torch, torch-compile, cuda, tensorrt, torch-cuda, torch-compile-cuda. "
            "An engine runs on its own TensorRT.",
            show_default="cpu for files, torch for names",
        ),
    ] = None,
    batch: Annotated[str | None, typer.Option(metavar="N,...", help="Batch sizes.", show_default="1,8")] = None,
    threads: Threads = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Measure the file of the settings that `rexport tune` wrote, on its runtime, threads and batch; "
            "MODELS are compared with it.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[Path | None, typer.Option(hidden=True)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures, DIR/<class>/<image>, for top-1 beside the speed; otherwise pictures are drawn.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="The most pictures of --data, evenly spread.")] = 256,
    from_pixels: Annotated[
        bool, typer.Option("--from-pixels", help="Time from an image's pixels on: normalising them included.")
    ] = False,
    on_device: Annotated[
        bool, typer.Option("--on-device", help="Time from images that lie in the device's memory already.")
    ] = False,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 3.0,
    min_calls: Annotated[int, typer.Option(min=1, help="The fewest calls to time per row.")] = 10,
    launches: Annotated[
        int, typer.Option(min=1, help="How often each process is started; 1 is quicker, and its intervals too narrow.")
    ] = 5,
    timeout: Annotated[
        float, typer.Option(help="Seconds without an answer after which a model counts as hanging.")
    ] = 120.0,
    scenario: ScenarioChoice = None,
    latency_bound: LatencyBound = None,
    seconds: TrialSeconds = None,
    loadgen: Loadgen = False,
    peak: PeakOption = False,
    remeasure_peak: RemeasurePeak = False,
    layers: Layers = False,
    report: Report = None,
    markdown: Markdown = None,
    compare: Compare = None,
    max_regression: MaxRegression = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the JSON to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Measure throughput and latency of models on the runtimes of this machine.

    Each model runs in processes of its own, on cores of their own, and they take turns, so that a drift of the machine
    hits all alike. The speed-up is that over the first row of the same batch size, with its 95 % interval. The timed
    input is random; --on torch builds a file's network with fresh weights. p90 takes 64 calls, and p99 (in the JSON)
    662. Outputs for the same pictures are compared with the first model's, and a model that is wrong is said to be.
    Ctrl-C keeps what was measured.
    """
    from rexport.cli._console import note, progress
    from rexport.cli._scenario import parse_scenario, say_trial
    from rexport.jobs.bench import BenchInterrupted, BenchRequest, run

    if profile is not None:
        note("--profile is called --settings now, and will be gone in the next version.")
    if as_json and markdown == "-":
        raise UsageError("--json and --markdown - both print to stdout; name a file for one of them.")
    request = BenchRequest(
        models=tuple(models or ()),
        settings=settings or profile,
        runtimes=parse_words(on) or None,
        batches=parse_counts("--batch", batch),
        threads=threads,
        data=data,
        samples=samples,
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
        result = run(request, progress=progress, note=note, on_trial=say_trial)
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
