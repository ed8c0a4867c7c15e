"""``rexport bench``: how fast models run here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._bench_report import Compare, Markdown, MaxRegression, Report, Reports
from rexport.cli._limits import Layers, PeakOption, RemeasurePeak
from rexport.cli._options import Json, Threads
from rexport.cli._paths import READ, READ_IMAGES, WRITE
from rexport.cli._profile import ProfileFile
from rexport.cli._scenario import LatencyBound, Loadgen, ScenarioChoice, TrialSeconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks import BenchResult
    from rexport.benchmarks.profiling.layers import LayerProfile
    from rexport.benchmarks.reports import Changes
    from rexport.benchmarks.scenarios import Asked, ScenarioRow

__all__ = ["bench"]

_BATCHES = "1,8"


def bench(
    models: Annotated[
        list[str] | None,
        READ,
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
    batch: Annotated[str | None, typer.Option(metavar="N,...", help="Batch sizes.", show_default=_BATCHES)] = None,
    threads: Threads = None,
    profile: ProfileFile = None,
    data: Annotated[
        Path | None,
        READ_IMAGES,
        typer.Option(
            help="Labelled pictures, DIR/<class>/<image>, for top-1 beside the speed; otherwise pictures are drawn.",
            exists=True,
            file_okay=False,
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
    output: Annotated[
        Path | None,
        WRITE,
        typer.Option("--output", "-o", help="Also write the JSON to this file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure throughput and latency of models on the runtimes of this machine.

    Each model runs in processes of its own, on cores of their own, and they take turns, so that a drift of the machine
    hits all alike. The speed-up is that over the first row of the same batch size, with its 95 % interval. The timed
    input is random; --on torch builds a file's network with fresh weights. p90 takes 64 calls, and p99 (in the JSON)
    662. Outputs for the same pictures are compared with the first model's, and a model that is wrong is said to be.
    Ctrl-C keeps what was measured.
    """
    from rexport import _files, benchmarks
    from rexport._errors import UnavailableError
    from rexport.cli import _console, _scenario

    asked = _scenario.parse_scenario(scenario, latency_bound, seconds, loadgen=loadgen)
    if output is not None:
        _files.check_writable(output)
    giving = _Giving(
        reports=Reports.parse(report, markdown, compare, max_regression, as_json=as_json),
        output=output,
        peak=peak,
        remeasure_peak=remeasure_peak,
        layers=layers,
        as_json=as_json,
    )
    what = _What.parse(models or (), on=on, batch=batch, threads=threads, profile=profile)
    if asked is not None:
        what = replace(what, batches=_scenario.batches_of(asked, what.batches, chosen=batch is not None))
        _run_scenario(what, asked, giving, from_pixels=from_pixels)
        return
    try:
        result = benchmarks.bench(
            what.sources,
            runtimes=what.runtimes,
            batches=what.batches,
            threads=what.threads,
            from_pixels=from_pixels,
            on_device=on_device,
            data=data,
            samples=samples,
            min_seconds=min_seconds,
            min_calls=min_calls,
            launches=launches,
            timeout=timeout,
            progress=_console.progress,
        )
    except benchmarks.BenchInterrupted as interrupted:
        if interrupted.result.measured:
            giving.give(interrupted.result, whole=False)
        raise
    changes = giving.give(result, whole=True)
    if not result.measured:
        raise UnavailableError(f"Nothing could be measured. {result.rows[0].reason}")
    if changes is not None:
        changes.require()


@dataclass(frozen=True, kw_only=True)
class _What:
    """What to measure: the arguments of :func:`rexport.bench`."""

    sources: tuple[str, ...]
    runtimes: tuple[str, ...] | None
    batches: tuple[int, ...]
    threads: int | None

    @classmethod
    def parse(
        cls, models: Sequence[str], *, on: str | None, batch: str | None, threads: int | None, profile: Path | None
    ) -> _What:
        """Take the profile's word, or that of the options.

        Raises:
            UsageError: There are both, or no models, or a batch is no number.
        """
        from rexport._errors import UsageError
        from rexport.cli import _console
        from rexport.cli._profile import profiled_bench

        if profile is not None:
            if (on, batch, threads) != (None, None, None):
                raise UsageError(
                    "--profile says the runtime, batch and threads; leave out --on, --batch and --threads."
                )
            by = profiled_bench(profile, models)
            for text in by.notes:
                _console.note(text)
            return cls(sources=by.sources, runtimes=by.runtimes, batches=by.batches, threads=by.threads)
        if not models:
            raise UsageError("Name at least one ONNX file or network to measure, or a --profile.")
        try:
            batches = tuple(int(part) for part in _split(_BATCHES if batch is None else batch))
        except ValueError:
            raise UsageError(f"--batch takes numbers such as {_BATCHES}, not {batch!r}.") from None
        runtimes = None if on is None else tuple(_split(on))
        return cls(sources=tuple(models), runtimes=runtimes, batches=batches, threads=threads)


@dataclass(frozen=True, kw_only=True)
class _Giving:
    """Where results go."""

    reports: Reports
    output: Path | None
    peak: bool
    remeasure_peak: bool
    layers: bool
    as_json: bool

    def give(self, result: BenchResult, *, whole: bool) -> Changes | None:
        """Write and print what was measured; of what Ctrl-C left, nothing more is measured.

        The rows are written before layers are profiled, so that no more than the profile can be lost.
        """
        from rexport.cli import _limits
        from rexport.cli._bench_table import print_notes, print_result

        limits, peaks = _limits.measure_limits(
            result.rows, peak=whole and self.peak, again=whole and self.remeasure_peak
        )
        document = _limits.with_limits(result.to_json(), limits, peaks)
        profiles: tuple[LayerProfile, ...] = ()
        if whole and self.layers:
            self._write(document)
            profiles = _limits.profile_rows(result.rows)
            document = _limits.with_limits(result.to_json(), limits, peaks, profiles)
        changes = self.give_document(document)
        if not self.as_json and not self.reports.markdown_to_stdout:
            if result.measured:
                print_result(result, limits)
                print_notes(document)
            _limits.print_peaks(peaks)
            for profile in profiles:
                _limits.print_layers(profile)
            self.print_changes(changes)
        return changes

    def give_document(self, document: dict[str, Any]) -> Changes | None:
        """Write a document and the reports on it, and print it if that was asked for."""
        from rexport.cli._bench_report import changes_json, command_line
        from rexport.cli._console import print_json

        document = {**document, "command": command_line()}
        changes = self.reports.changes(document)
        if changes is not None:
            document |= changes_json(changes)
        self._write(document)
        self.reports.write(document, changes)
        if self.as_json:
            print_json(document)
        return changes

    def print_changes(self, changes: Changes | None) -> None:
        """Print what changed since the earlier run, if there is one."""
        from rexport.cli._bench_report import print_changes

        print_changes(changes)

    def _write(self, document: dict[str, Any]) -> None:
        import json

        from rexport._files import write_text

        if self.output is not None:
            write_text(self.output, json.dumps(document, indent=1) + "\n")


def _run_scenario(what: _What, asked: Asked, giving: _Giving, *, from_pixels: bool) -> None:
    """Run a scenario on every row, one after the other."""
    from rexport._errors import UnavailableError
    from rexport.benchmarks.scenarios.outcome import ScenariosInterrupted, run_rows
    from rexport.benchmarks.suite import planned
    from rexport.cli import _scenario

    plans = planned(
        what.sources, runtimes=what.runtimes, batches=what.batches, threads=what.threads, from_pixels=from_pixels
    )
    try:
        rows = run_rows(plans, asked, on_trial=_scenario.say_trial)
    except ScenariosInterrupted as interrupted:
        _give_scenario(interrupted.rows, asked, giving)
        raise
    changes = _give_scenario(rows, asked, giving)
    if not any(row.outcome for row in rows):
        raise UnavailableError(f"Nothing could be measured. {rows[0].row.reason}")
    if changes is not None:
        changes.require()


def _give_scenario(rows: Sequence[ScenarioRow], asked: Asked, giving: _Giving) -> Changes | None:
    from rexport.benchmarks import machine_facts
    from rexport.benchmarks.results import SCHEMA
    from rexport.cli import _scenario
    from rexport.cli._bench_table import print_notes

    machine = machine_facts()
    document = {"schema": SCHEMA, "machine": machine.to_json(), "rows": [row.to_json() for row in rows]}
    changes = giving.give_document(document)
    if not giving.as_json and not giving.reports.markdown_to_stdout:
        title = f"{asked.scenario}; {machine}"
        _scenario.print_outcomes([row.outcome for row in rows if row.outcome is not None], title=title)
        print_notes(document)
        giving.print_changes(changes)
    return changes


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
