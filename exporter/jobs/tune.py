"""Tuning: which file, runtime, batch and number of threads run a model best here, written down as settings."""

from __future__ import annotations

import math
import platform
import tempfile
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._cpu import this_cpu
from rexport._errors import GateError, ModelFileError, UnavailableError, UsageError
from rexport._files import check_writable, file_sha256, write_bytes
from rexport._progress import Note, Progress, silent, unsaid
from rexport._version import __version__
from rexport._words import counted, suggestion
from rexport.benchmarks import machine_facts
from rexport.choices import Goal
from rexport.deployment_settings import (
    DeploymentSettings,
    Expected,
    Goals,
    Precision,
    Regroup,
    RunSettings,
    TunedMachine,
    TunedModel,
    write_settings,
)
from rexport.jobs.quantize import check_gate
from rexport.jobs.result import JobResult
from rexport.jobs.variants import INT8, MEASURE, OFF, ONNX_RUNTIME_CPU, VariantRequest, Variants, make_variants
from rexport.model_file import load
from rexport.model_inputs import image_input, is_size_assumed, picture_size
from rexport.preprocessing import size_in_words
from rexport.quantization import require_float
from rexport.runtimes import ENGINE_RUNTIMES, NETWORK_RUNTIMES, NODE_BY_NODE, RUNTIMES
from rexport.tuning import Bounds, Candidate, SearchResult, search_deployment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from rexport.benchmarks import Machine
    from rexport.choices import Recovery
    from rexport.tuning import Estimate, Measured, Trial, Variant

__all__ = ["TuneRequest", "TuneResult", "run"]

_SCHEMA = "rexport.tune/1"
_DEFAULT_RUNTIMES = (ONNX_RUNTIME_CPU, "openvino")
_DEFAULT_BATCHES = (1, 2, 4, 8, 16)
_FLOAT: Final = "fp32"
_HALF: Final = "fp16"
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv")
_DIGITS = 5  # significant ones that are written: more than any measurement has
_SECONDS_EACH, _SECONDS_FINAL = 5.0, 30.0


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What to tune, among which ways to run it, and within which bounds.

    Attributes:
        model: An ONNX file, float or INT8.
        output: Where the settings go.
        model_output: Where the file goes if it had to be made; by default ``SETTINGS-tuned.onnx`` beside the settings.
        goal: The most images per second, or the shortest call.
        latency_bound_ms: The bound of p90, in milliseconds.
        data: Pictures to make INT8 files of a float model with.
        eval_data: Labelled pictures to measure their accuracy on.
        max_drop: The percentage points of top-1 that they may lose.
        runtimes: By default ONNX Runtime and OpenVINO, as far as they are installed.
        batches: By default the file's own, else 1 to 16, and 1 for latency.
        threads: By default 1, 2, 4 … and one per core.
        precisions: ``fp32`` and ``int8``; by default both where there are pictures.
        regroup: ``off`` leaves grouped convolutions as they are, ``measure`` tries the forms that are fastest.
        samples: How many pictures to calibrate with.
        recovery: What is done against the loss of accuracy.
        skip_bad: Go on without pictures that can't be read.
        seconds: How long to measure, about; by default 5 for each candidate and 30 for the last ones.

    Raises:
        UsageError: The values do not go together.
    """

    model: Path = field(metadata=READ)
    output: Path = field(metadata=WRITE)
    model_output: Path | None = field(default=None, metadata=WRITE)
    goal: Goal = Goal.THROUGHPUT
    latency_bound_ms: float | None = None
    data: Path | None = field(default=None, metadata=READ_IMAGES)
    eval_data: Path | None = field(default=None, metadata=READ_IMAGES)
    max_drop: float | None = None
    runtimes: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None
    threads: tuple[int, ...] | None = None
    precisions: tuple[str, ...] | None = None
    regroup: tuple[str, ...] = (OFF, MEASURE)
    samples: int = 512
    recovery: Recovery | None = None
    skip_bad: bool = False
    seconds: float | None = None

    def __post_init__(self) -> None:
        bound, seconds = self.latency_bound_ms, self.seconds
        if bound is not None and not 0 < bound < math.inf:
            raise UsageError(f"--latency-bound {bound:g}: must be above 0 ms, such as 20.")
        if seconds is not None and not 0 < seconds < math.inf:
            raise UsageError(f"--seconds {seconds:g}: must be above 0, such as 120.")
        check_gate(self.eval_data, self.max_drop)
        _require_choices("--on", self.runtimes, _runtimes())
        _require_choices("--precision", self.precisions, (_FLOAT, INT8))
        _require_choices("--regroup", self.regroup, (OFF, MEASURE))

    @property
    def made_at(self) -> Path:
        """Where the file goes if it had to be made."""
        return self.model_output or self.output.with_name(f"{self.output.stem}-tuned.onnx")

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """What is written without being named."""
        return () if self.model_output is not None else (self.made_at,)

    @property
    def bounds(self) -> Bounds:
        """What the result has to keep within."""
        return Bounds(latency_ms=self.latency_bound_ms, drop_points=self.max_drop)


@dataclass(frozen=True, kw_only=True, repr=False)
class TuneResult(JobResult):
    """What was measured, the ``settings`` if anything keeps within the bounds, and the ``model`` that they name."""

    request: TuneRequest
    machine: Machine
    variants: Variants
    search: SearchResult
    settings: DeploymentSettings | None
    model: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.tune/1``."""
        request, search, settings = self.request, self.search, self.settings
        path = settings and str(request.output)
        return {
            "schema": _SCHEMA,
            "machine": self.machine.to_json(),
            "model": str(request.model),
            "goal": str(request.goal),
            "latency_bound_ms": request.latency_bound_ms,
            "max_drop_points": request.max_drop,
            "seconds": search.seconds,
            "settings": path,
            "profile": path,  # the older name of the key
            "file": self.model and str(self.model),
            "sha256": settings and settings.model.sha256,
            "chosen": search.chosen and _candidate_json(search.chosen.candidate),
            "nearest": search.nearest and _candidate_json(search.nearest.candidate),
            "candidates": [_trial_json(trial, request.bounds) for trial in search.trials],
            "left_out": [{"what": variant.what, "reason": variant.reason} for variant in self.variants.left_out],
            "quantized": [{**result.to_json(), "file": None} for result in self.variants.quantized],  # temporary files
        }

    def facts(self) -> dict[str, str]:
        """Return the choice, and how fast it is."""
        facts = {"machine": str(self.machine), "measured": counted(len(self.search.trials), "candidate")}
        chosen = self.search.chosen
        if chosen is not None:
            facts |= {
                "chosen": f"{chosen.candidate}; {self.model}",
                "images per second": f"{chosen.images_per_second:,.1f}",
                "p90": f"{chosen.percentile_ms(90):.2f} ms",
                "settings": str(self.request.output),
            }
        return facts

    def require(self) -> None:
        """Do nothing if settings were written.

        Raises:
            GateError: Nothing keeps within the bounds.
            UnavailableError: Nothing could be measured.
        """
        if self.search.chosen is not None:
            return
        near, bound = self.search.nearest, self.request.latency_bound_ms
        if near is None or bound is None:
            reasons = [trial.reason for trial in self.search.trials if trial.reason is not None]
            raise UnavailableError(f"No measurement could be completed. {reasons[0]}")
        advice = "or try --goal latency, more --threads, another runtime"
        if not any(variant.precision == INT8 for variant in self.variants.files):
            advice += ", or INT8 with --data IMAGES"
        raise GateError(
            f"None of {counted(len(self.search.trials), 'candidate')} has a p90 within {bound:g} ms; the nearest is "
            f"{near.candidate}, which takes {near.percentile_ms(90):.2f} ms. Allow that with --latency-bound, "
            f"{advice}. No settings were written."
        )


def run(request: TuneRequest, *, progress: Progress = silent, note: Note = unsaid) -> TuneResult:
    """Measure the ways to run a model against each other, and write down the best as deployment settings.

    Raises:
        UsageError: The values do not fit the model.
        ModelFileError: The file is not a model of pictures.
        DataError: Pictures can't be used.
        GateError: No file keeps the accuracy that was asked for.
        OutputError: A file can't be written.
    """
    note = cache(note)  # once each: several files are made of one model, and the same is true of them
    require_files_apart(request)
    check_writable(request.output)
    check_writable(request.made_at)
    machine = machine_facts()  # before this makes it busy itself
    if machine.is_busy:
        note(
            f"the machine is busy ({machine.load}), which may change the choice; better stop and tune when it is idle."
        )
    model = _load(request.model)
    if is_size_assumed(model):
        size = size_in_words(picture_size(model))
        note(f"{request.model} takes pictures of any size and states none; taking {size}.")
    choices = _choices(request, model)
    with tempfile.TemporaryDirectory(prefix="rexport-tune-") as folder:
        variants = make_variants(choices, Path(folder), progress=progress, note=note)
        candidates = _candidates(choices, variants.files)
        if not candidates:
            reasons = dict.fromkeys(variant.reason for variant in variants.left_out)
            raise GateError(f"No candidate is left. {' '.join(reasons)}")
        seconds = request.seconds or _SECONDS_EACH * len(candidates) + _SECONDS_FINAL
        note(f"measuring {counted(len(candidates), 'way')} to run {request.model}, in about {seconds:.0f} s")
        search = search_deployment(
            candidates, bounds=request.bounds, goal=request.goal, seconds=seconds, progress=progress
        )
        settings, file = None, None
        if search.chosen is not None:
            settings, file = _write(search.chosen, request)
    return TuneResult(request=request, machine=machine, variants=variants, search=search, settings=settings, model=file)


def _load(path: Path) -> ir.Model:
    model = load(path)
    image_input(model, path)
    return model


def _choices(request: TuneRequest, model: ir.Model) -> VariantRequest:
    """Return what to choose from, with the defaults that the model and this machine give."""
    own = _precision_of(model)
    fixed = image_input(model).batch
    batches = request.batches
    if batches is None:
        batches = _DEFAULT_BATCHES
        if fixed is not None:
            batches = (fixed,)
        elif request.goal is Goal.LATENCY:  # which no larger batch makes shorter
            batches = (1,)
    choices = VariantRequest(
        tuning=request,
        own_precision=own,
        precisions=_precisions(request, own),
        runtimes=request.runtimes or _installed_runtimes(),
        batches=batches,
        threads=_threads() if request.threads is None else request.threads,
    )
    if not choices.quantizes:
        _refuse_accuracy_options(request, own)
    return choices


def _precision_of(model: ir.Model) -> Precision:
    try:
        require_float(model)
    except ModelFileError:  # it is quantized, or in float16
        return INT8 if any(node.op_type in _QUANTIZED for node in model.graph) else _HALF
    return _FLOAT


def _precisions(request: TuneRequest, own: str) -> tuple[str, ...]:
    precisions = request.precisions
    if precisions is None:
        return (own, INT8) if request.data is not None and own == _FLOAT else (own,)
    if own == _FLOAT and INT8 in precisions and request.data is None:
        raise UsageError("INT8 needs images to calibrate with; pass --data IMAGES, or --precision fp32.")
    if own != _FLOAT and precisions != (own,):
        raise UsageError(
            f"{request.model} is {own} already, so it can't be tuned in --precision {','.join(precisions)}; pass the "
            "float model that it was made from, or leave --precision out."
        )
    return precisions


def _refuse_accuracy_options(request: TuneRequest, own: str) -> None:
    reason = "none will be made; pass --data IMAGES without --precision"
    if own != _FLOAT:
        reason = f"{request.model} is {own} already; pass the float model that it was made from"
    options = {"--data": request.data, "--eval-data": request.eval_data, "--max-drop": request.max_drop}
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} is for making INT8 files, and {reason}, or leave {option} out.")


def _runtimes() -> tuple[str, ...]:
    """Return the runtimes of ONNX files, but for the one that is slow on purpose."""
    excluded = {*NETWORK_RUNTIMES, *ENGINE_RUNTIMES.values(), NODE_BY_NODE}
    return tuple(name for name in RUNTIMES if name not in excluded)


def _installed_runtimes() -> tuple[str, ...]:
    possible = [name for name in _DEFAULT_RUNTIMES if name in _runtimes()]
    return tuple(name for name in possible if name == ONNX_RUNTIME_CPU or find_spec(name))


def _threads() -> tuple[int, ...]:
    """Return 1, 2, 4 … and the number of usable cores."""
    cores = this_cpu().cores
    return tuple(sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores}))


def _require_choices(option: str, values: tuple[str, ...] | None, possible: tuple[str, ...]) -> None:
    if values is None:
        return
    wrong = next((value for value in values if value not in possible), None)
    if wrong is not None or not values:
        hint = suggestion(wrong or "", possible)
        raise UsageError(f"{option} {wrong or ''!r}: choose from {', '.join(possible)}.{hint}")


def _candidates(choices: VariantRequest, files: Sequence[Variant]) -> list[Candidate]:
    """Return every way to run every file."""
    return [
        Candidate(variant=variant, runtime=runtime, batch=batch, threads=threads)
        for variant in files
        for runtime in choices.runtimes
        if variant.runtimes is None or runtime in variant.runtimes
        for threads in choices.threads
        for batch in choices.batches
    ]


def _write(best: Measured, request: TuneRequest) -> tuple[DeploymentSettings, Path]:
    """Write the settings, and before them the file, if that was made; return both."""
    variant = best.candidate.variant
    model = request.made_at if variant.made else variant.path
    settings = DeploymentSettings(
        model=TunedModel(
            file=_relative(model, request.output.parent),
            sha256=file_sha256(variant.path),
            precision=variant.precision,
            regroup=_regroup_word(variant),
        ),
        run=RunSettings(runtime=best.candidate.runtime, threads=best.candidate.threads, batch=best.candidate.batch),
        asked=Goals(goal=request.goal, latency_bound_ms=request.latency_bound_ms, max_drop_points=request.max_drop),
        expected=_expected(best),
        machine=TunedMachine.here(),
        versions=_versions(best.candidate.runtime),
    )
    settings.to_toml()  # raises before a file is written if it can't be
    if variant.made:
        write_bytes(model, variant.path.read_bytes())
    write_settings(settings, request.output)
    return settings, model


def _expected(best: Measured) -> Expected:
    throughput = best.throughput_estimate()
    p50, p90 = best.percentile_estimate(50), best.percentile_estimate(90)
    drop = best.candidate.variant.drop_points
    return Expected(
        images_per_second=_significant(throughput.value),
        images_per_second_interval=_interval(throughput),
        p50_ms=_significant(p50.value),
        p50_ms_interval=_interval(p50),
        p90_ms=_significant(p90.value),
        p90_ms_interval=_interval(p90),
        calls=len(best.seconds),
        drop_points=drop and _significant(drop),
    )


def _interval(estimate: Estimate) -> tuple[float, float]:
    return _significant(estimate.low), _significant(estimate.high)


def _significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _versions(runtime: str) -> dict[str, str]:
    """Return the versions of what the times depend on: rexport, and what is behind the runtime."""
    versions = {"rexport": __version__, "python": platform.python_version()}
    distributions = {"openvino": ("openvino",)}.get(runtime, ("onnxruntime", "onnxruntime-gpu"))
    for name in distributions:
        try:
            versions[distributions[0]] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        break
    return versions


def _relative(model: Path, folder: Path) -> str:
    """Return the path from the settings' folder to the file."""
    try:
        return Path(relpath(model.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on Windows, another drive
        raise UsageError(
            f"Settings hold the path of their model relative to their own folder, and {model} is on another drive."
        ) from None


def _regroup_word(variant: Variant) -> Regroup:
    return MEASURE if variant.regrouped else OFF


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    variant = candidate.variant
    return {
        "precision": variant.precision,
        "regroup": _regroup_word(variant),
        "made": variant.made,
        "runtime": candidate.runtime,
        "threads": candidate.threads,
        "batch": candidate.batch,
        "drop_points": variant.drop_points,
    }


def _trial_json(trial: Trial, bounds: Bounds) -> dict[str, Any]:
    return {
        **_candidate_json(trial.candidate),
        "status": "left out" if trial.reason else "ok",
        "reason": trial.reason,
        "finalist": trial.is_finalist,
        **_times_json(trial.measured, bounds),
        "stages": [
            {
                "stage": stage,
                "seconds": [second for block in rounds for second in block],
                "calls_per_round": [len(block) for block in rounds],
            }
            for stage, rounds in trial.stages
        ],
    }


def _times_json(measured: Measured | None, bounds: Bounds) -> dict[str, Any]:
    if measured is None:
        return dict.fromkeys(("images_per_second", "images_per_second_interval", "latency_ms", "calls", "holds"))
    throughput = measured.throughput_estimate()
    return {
        "images_per_second": throughput.value,
        "images_per_second_interval": [throughput.low, throughput.high],
        "latency_ms": {"p50": measured.percentile_ms(50), "p90": measured.percentile_ms(90)},
        "calls": len(measured.seconds),
        "holds": bounds.hold(measured),
    }
