"""Benchmarking: models on runtimes, compared with each other, with the machine's peak, and with an earlier run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport import benchmarks
from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._errors import RexportError, UnavailableError, UsageError
from rexport._files import check_writable, write_text
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import counted
from rexport.benchmarks import BenchResult, machine_facts, reports
from rexport.benchmarks.document import now
from rexport.benchmarks.limits import against_peaks, peaks_for, reached
from rexport.benchmarks.loadgen import require_loadgen
from rexport.benchmarks.profiling.layers import profile_layers
from rexport.benchmarks.reports.table import findings, rows_table
from rexport.benchmarks.scenarios import Scenario, ScenariosInterrupted, run_rows
from rexport.benchmarks.suite import planned
from rexport.deployment_settings import TunedMachine, load_settings
from rexport.jobs.result import JobResult, Table
from rexport.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rexport.benchmarks import Machine, Row
    from rexport.benchmarks.document import Peak, Trial
    from rexport.benchmarks.profiling.profiled import LayerProfile
    from rexport.benchmarks.reports import Changes
    from rexport.benchmarks.scenarios import ScenarioRequest

__all__ = ["BenchInterrupted", "BenchReport", "BenchRequest", "measure_limits", "profile_rows", "run", "with_settings"]

_BATCHES = (1, 8)


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure, how, and where the results go.

    Attributes:
        models: ONNX files, engines and names of networks; the first is the baseline.
        saved: The document of a run to report on; then nothing is measured.
        settings: Deployment settings, whose file is measured first, on its runtime, batch and threads.
        runtimes: By default ONNX Runtime's CPU provider for files, and PyTorch for networks.
        batches: By default 1 and 8.
        threads: By default one per usable core.
        data: Labelled pictures, for top-1 beside the speed, and to compare outputs on.
        samples: The most of them, evenly spread.
        shapes: The shapes of inputs of models that take no pictures, where they are open.
        from_pixels: Whether a call begins with an image's pixels, so that normalising them belongs to it.
        on_device: Whether a call begins with images in the device's memory.
        min_seconds: The least time to measure each row.
        min_calls: The fewest calls to time per row.
        launches: How often each process is started.
        timeout: Seconds without an answer after which a model counts as hanging.
        scenario: How queries come, a model at a time; by default models take turns.
        peak: Whether to compare with the machine's peak.
        remeasure_peak: The same, with the peak measured again.
        layers: Whether to profile the layers of each file.
        compare: The document of an earlier run.
        max_regression: The per cent that a row may be slower than there.
        output: Where the document goes.
        html: Where a report with charts goes.
        markdown: Where a table in Markdown goes.
        command: What was typed, for the document.

    Raises:
        UsageError: The values do not go together.
    """

    models: tuple[str, ...] = field(default=(), metadata=READ)
    saved: Path | None = field(default=None, metadata=READ)
    settings: Path | None = field(default=None, metadata=READ)
    runtimes: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None
    threads: int | None = None
    data: Path | None = field(default=None, metadata=READ_IMAGES)
    samples: int = 256
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    from_pixels: bool = False
    on_device: bool = False
    min_seconds: float = 3.0
    min_calls: int = 10
    launches: int = 5
    timeout: float = 120.0
    scenario: ScenarioRequest | None = None
    peak: bool = False
    remeasure_peak: bool = False
    layers: bool = False
    compare: Path | None = field(default=None, metadata=READ)
    max_regression: float | None = None
    output: Path | None = field(default=None, metadata=WRITE)
    html: Path | None = field(default=None, metadata=WRITE)
    markdown: Path | None = field(default=None, metadata=WRITE)
    command: str | None = None

    def __post_init__(self) -> None:
        if self.saved is not None and self.measures:
            raise UsageError(
                "--from reports on a saved run and measures nothing; leave out MODEL, and options of measuring such as "
                "--on, --data, --settings, --scenario and --layers."
            )
        if self.settings is not None and (self.runtimes, self.batches, self.threads) != (None, None, None):
            raise UsageError("--settings says the runtime, batch and threads; leave out --on, --batch and --threads.")
        if not (self.models or self.settings or self.saved):
            raise UsageError("Name at least one ONNX file or network to measure, or --settings, or --from.")
        if self.single_stream and self.batches not in (None, (1,)):
            raise UsageError(
                "--scenario single-stream runs one image at a time; leave --batch out, or pass --scenario offline."
            )
        bound = self.max_regression
        if bound is not None and self.compare is None:
            raise UsageError("--max-regression needs an earlier run to compare with; pass --compare OLD.json too.")
        if bound is not None and not 0 <= bound < 100:
            raise UsageError(f"--max-regression {bound:g}: must be a percentage from 0 to below 100, such as 5.")

    @property
    def measures(self) -> bool:
        """Whether it says what to measure, or how."""
        models = self.models or self.settings or self.runtimes or self.batches or self.threads or self.data
        return bool(models or self.scenario or self.peak or self.remeasure_peak or self.layers)

    @property
    def single_stream(self) -> bool:
        """Whether each query is of one image."""
        return self.scenario is not None and self.scenario.scenario is Scenario.SINGLE_STREAM

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batches, defaults included."""
        if self.single_stream:
            return (1,)
        return _BATCHES if self.batches is None else self.batches


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchReport(JobResult, BenchResult):
    """What was measured.

    Attributes:
        request: What was asked for.
        changes: Since the earlier run, if one was named.
    """

    request: BenchRequest
    changes: Changes | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.bench/1``."""
        document = BenchResult.to_json(self)
        if self.changes is not None:
            document["changes"] = self.changes.to_json()
        return document

    def facts(self) -> dict[str, str]:
        """Return the machine, and which rows are the fastest."""
        return {"machine": str(self.machine), "result": " ".join(findings(self))}

    def as_table(self) -> Table:
        """Return the rows that were measured."""
        rows = rows_table(self)
        return Table(rows.columns, rows.cells)

    def to_markdown(self) -> str:
        """Return the table and what changed."""
        text = reports.to_markdown(self)
        if self.changes is not None:
            text += f"\n{reports.changes_to_markdown(self.changes)}"
        return text

    def require(self) -> None:
        """Do nothing if something was measured, and nothing is too much slower than before.

        Raises:
            UnavailableError: Nothing was measured.
            GateError: A row is surely slower than allowed.
        """
        if not self.measured:
            raise UnavailableError(f"Nothing could be measured. {self.rows[0].reason}")
        if self.changes is not None:
            self.changes.require()


class BenchInterrupted(KeyboardInterrupt):
    """Ctrl-C after something was measured; ``report`` has it, and is written."""

    def __init__(self, report: BenchReport) -> None:
        super().__init__()
        self.report = report


def run(
    request: BenchRequest,
    *,
    progress: Progress = silent,
    note: Note = unsaid,
    on_trial: Callable[[Trial], None] | None = None,
) -> BenchReport:
    """Measure, compare with the earlier run, and write the files that were asked for; tell ``on_trial`` of each trial.

    With ``saved``, the run that is reported on is read instead of measured.

    Raises:
        UsageError: A runtime or number makes no sense.
        InputError: The saved run, the earlier one or the settings can't be used.
        ModelFileError: A file is not a model of pictures.
        DataError: Pictures can't be used.
        UnavailableError: What writes HTML, or LoadGen, is not installed.
        OutputError: A file can't be written.
        BenchInterrupted: Ctrl-C was pressed.
    """
    require_files_apart(request)
    for path in filter(None, (request.output, request.html, request.markdown)):
        check_writable(path)
    if request.html is not None:
        reports.require_extra()
    old = None if request.compare is None else reports.load_document(request.compare)
    if request.saved is not None:
        return _write(_report(request, reports.load_document(request.saved)), old)
    machine = machine_facts()
    if old is not None and request.max_regression is not None:
        reports.require_same_machine(old, machine.to_json())
    request = with_settings(request, note)
    if machine.is_busy:
        note(f"the machine is busy ({machine.load}): times will be too long; better stop and measure when it is idle.")
    if request.scenario is not None:
        return _run_scenario(request, request.scenario, machine, old, on_trial)
    return _run_in_turns(request, old, progress, note)


def with_settings(request: BenchRequest, note: Note) -> BenchRequest:
    """Return the request with the file, runtime, batch and threads of its deployment settings.

    Raises:
        InputError: They can't be used.
        ModelFileError: Their file is not there, or another one by now.
        UsageError: Their runtime is none of this version's.
    """
    path = request.settings
    if path is None:
        return request
    settings = load_settings(path)
    model, run = settings.model_path(path), settings.run
    settings.check_model(model)
    if run.runtime not in RUNTIMES:
        raise UsageError(f"{path} names the runtime {run.runtime!r}; choose from {', '.join(RUNTIMES)}.")
    expected = settings.expected
    low, high = expected.images_per_second_interval
    note(
        f"{path}: {run.runtime}, batch {run.batch}, {counted(run.threads, 'thread')}; expected "
        f"{expected.images_per_second:,.1f} images per second (95 % interval {low:,.1f} to {high:,.1f})"
    )
    differences = settings.machine.differences(TunedMachine.here())
    if differences:
        note(
            f"{path} was tuned on another machine ({'; '.join(differences)}): numbers will differ, and another choice "
            "may be best; run `rexport tune` here."
        )
    compared = [name for name in request.models if Path(name).resolve() != model.resolve()]
    return replace(
        request,
        settings=None,
        models=(str(model), *compared),
        runtimes=(run.runtime,),
        batches=(1,) if request.single_stream else (run.batch,),
        threads=run.threads,
    )


def measure_limits(
    rows: Sequence[Row], *, peak: bool, again: bool, progress: Progress = silent, note: Note = unsaid
) -> tuple[tuple[Row, ...], tuple[Peak, ...]]:
    """Return the rows with how fast they compute, and the peaks; without ``peak`` there are none to compare with.

    A peak that can't be measured is a note, not the end: the rows are measured already.
    """
    speeds = reached(rows)
    peaks: tuple[Peak, ...] = ()
    if peak:
        try:
            peaks = peaks_for(speeds, again=again, progress=progress)
        except UnavailableError as error:
            note(str(error))
    speeds, peaks = against_peaks(speeds, peaks)
    return tuple(replace(row, **speed.row_fields()) for row, speed in zip(rows, speeds, strict=True)), peaks


def profile_rows(rows: Sequence[Row], progress: Progress = silent, note: Note = unsaid) -> tuple[LayerProfile, ...]:
    """Profile each file of the measured rows, on its runtimes, batches and threads; note what can't be."""
    settings = dict.fromkeys((row.model, row.runtime, row.batch, row.threads) for row in rows if row.rounds)
    profiles = []
    with progress("profiling layers", len(settings)) as advance:
        for model, runtime, batch, threads in settings:
            if Path(model).is_file():
                try:
                    profiles.append(profile_layers(Path(model), runtime=runtime, batch=batch, threads=threads))
                except RexportError as error:
                    note(str(error))
            else:
                note(f"{model} is not a file, so its layers can't be profiled; export it with `rexport onnx`.")
            advance(1)
    return tuple(profiles)


def _report(request: BenchRequest, result: BenchResult) -> BenchReport:
    return BenchReport(request=request, **vars(result))


def _run_in_turns(request: BenchRequest, old: BenchResult | None, progress: Progress, note: Note) -> BenchReport:
    """Measure all models against each other, and then the peak and the layers."""
    try:
        result = benchmarks.bench(
            request.models,
            runtimes=request.runtimes,
            batches=request.batch_sizes,
            threads=request.threads,
            from_pixels=request.from_pixels,
            on_device=request.on_device,
            data=request.data,
            samples=request.samples,
            shapes=request.shapes,
            min_seconds=request.min_seconds,
            min_calls=request.min_calls,
            launches=request.launches,
            timeout=request.timeout,
            progress=progress,
        )
    except benchmarks.BenchInterrupted as interrupted:
        if not interrupted.result.measured:
            raise
        rows, _ = measure_limits(interrupted.result.rows, peak=False, again=False)
        partial = replace(interrupted.result, rows=rows, command=request.command)
        raise BenchInterrupted(_write(_report(request, partial), old)) from interrupted
    rows, peaks = measure_limits(
        result.rows,
        peak=request.peak or request.remeasure_peak,
        again=request.remeasure_peak,
        progress=progress,
        note=note,
    )
    report = _report(request, replace(result, rows=rows, peaks=peaks, command=request.command))
    if request.layers:
        _write_document(report)  # before layers are profiled, so that only the profiles can be lost
        report = replace(report, layers=profile_rows(result.rows, progress, note))
    return _write(report, old)


def _run_scenario(
    request: BenchRequest,
    scenario: ScenarioRequest,
    machine: Machine,
    old: BenchResult | None,
    on_trial: Callable[[Trial], None] | None,
) -> BenchReport:
    """Run a scenario on every row, one after the other."""
    if scenario.loadgen:
        require_loadgen()
    plans = planned(
        request.models,
        runtimes=request.runtimes,
        batches=request.batch_sizes,
        threads=request.threads,
        from_pixels=request.from_pixels,
    )
    report = BenchReport(request=request, machine=machine, time=now(), command=request.command)
    try:
        rows = run_rows(plans, scenario, on_trial=on_trial)
    except ScenariosInterrupted as interrupted:
        raise BenchInterrupted(_write(replace(report, rows=interrupted.rows), old)) from interrupted
    return _write(replace(report, rows=rows), old)


def _write(report: BenchReport, old: BenchResult | None) -> BenchReport:
    """Compare with the earlier run, write the files, and return the report with what changed."""
    request = report.request
    if old is not None:
        report = replace(report, changes=reports.compare(old, report, request.max_regression))
    _write_document(report)
    if request.html is not None:
        write_text(request.html, reports.to_html(report, report.changes))
    if request.markdown is not None:
        write_text(request.markdown, report.to_markdown())
    return report


def _write_document(report: BenchReport) -> None:
    if report.request.output is not None:
        write_text(report.request.output, json.dumps(report.to_json(), indent=1) + "\n")
