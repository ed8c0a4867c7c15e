"""Models × runtimes × batch sizes, measured and compared: what ``rexport bench`` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport import model_file
from rexport._cpu import this_cpu
from rexport._errors import UnavailableError, UsageError
from rexport._progress import silent
from rexport.benchmarks.interleave import Failure, Job, Timing, measure
from rexport.benchmarks.machine import machine_facts
from rexport.benchmarks.results import BenchResult, Row, Status, compare_with_first
from rexport.models import registry
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes import RUNTIMES
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport._progress import Progress

__all__ = ["bench"]

_DEFAULT_SIZE = 224  # of a file that takes any size and does not say which it was trained at
_CAMERA = (480, 640)  # height and width of the pictures for a file that resizes them itself: VGA


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A model to measure, as far as its file or its name tells.

    Its pictures have ``size`` × ``size`` pixels; if it takes them raw, they are of shape ``raw``, ``(H, W, 3)``.
    ``network`` is what PyTorch can run in its place; ``no_network`` says why there is none.
    """

    source: Source
    size: int
    raw: tuple[int, int, int] | None = None
    fixed_batch: int | None = None
    network: Source | None = None
    no_network: str = ""


def bench(
    sources: Sequence[str | Path | Source],
    *,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 8),
    threads: int | None = None,
    from_pixels: bool = False,
    min_seconds: float = 3.0,
    min_calls: int = 10,
    progress: Progress = silent,
) -> BenchResult:
    """Measure how fast models run here, each in a process of its own, interleaved.

    Only speed is measured: the input is random, and a file that PyTorch is to run stands for the network it
    was exported from, with fresh weights. Rows of one batch size are measured together and can be compared;
    each batch size gets new processes, so that a row's memory is its own.

    Args:
        sources: ONNX files and networks of the zoo. The first is what the others' speed-up refers to.
        runtimes: Names from :data:`rexport.runtimes.RUNTIMES`; by default ``cpu`` for files and ``torch`` for
            networks.
        batches: Images per call.
        threads: Threads per model; by default all usable cores.
        from_pixels: Whether a call starts with the pixels of its images, uint8 and cut out, so that normalising them,
            in one thread of NumPy, belongs to it. Models that take them raw begin at once.
        min_seconds: The least time to measure each row, in seconds.
        min_calls: The fewest calls to time per row.
        progress: Opens progress bars.

    Returns:
        A row for each batch size, model and runtime, in this order. What can't run here, or fails, has a row
        that says why.

    Raises:
        UsageError: No or unknown models or runtimes, or numbers below 1.
        ModelFileError: A file is not a model of images.
    """
    _check_arguments(sources, runtimes, batches, threads, min_seconds, min_calls)
    models = [_examine(source if isinstance(source, Source) else Source.parse(str(source))) for source in sources]
    cores = threads or this_cpu().cores
    machine = machine_facts()
    rows: list[Row] = []
    for batch in dict.fromkeys(batches):
        slots = [
            (_row(model, runtime, batch, cores), _plan(model, runtime, batch, cores, from_pixels=from_pixels))
            for model in models
            for runtime in runtimes or _default_runtimes(model)
        ]
        jobs = [plan for _, plan in slots if isinstance(plan, Job)]
        outcomes = iter(measure(jobs, min_seconds=min_seconds, min_calls=min_calls, progress=progress))
        rows += [_fill(row, next(outcomes) if isinstance(plan, Job) else plan) for row, plan in slots]
    return BenchResult(machine=machine, rows=compare_with_first(rows))


def _check_arguments(
    sources: Sequence[str | Path | Source],
    runtimes: Sequence[str] | None,
    batches: Sequence[int],
    threads: int | None,
    min_seconds: float,
    min_calls: int,
) -> None:
    if not sources:
        raise UsageError("Name at least one ONNX file or network to measure.")
    for name in runtimes or ():
        if name not in RUNTIMES:
            raise UsageError(f"There is no runtime {name!r}; choose from {', '.join(RUNTIMES)}.")
    if not batches or min(batches) < 1:
        raise UsageError("A batch has 1 image or more.")
    if threads is not None and threads < 1:
        raise UsageError(f"A model runs on 1 thread or more, not {threads}.")
    if min_calls < 1 or not 0 <= min_seconds < float("inf"):
        raise UsageError("Time at least 1 call and at least 0 seconds per row.")


def _examine(source: Source) -> _Model:
    if source.path is None:
        return _Model(source=source, size=registry.find(str(source.network)).input_size, network=source)
    model = model_file.load(source.path)
    image = model_file.image_input(model, source.path)
    metadata = model_file.Metadata.of(model)
    size = image.size or (metadata.preprocessing.size if metadata.preprocessing else _DEFAULT_SIZE)
    whole = metadata.preprocessing is not None and metadata.preprocessing.takes is Takes.PICTURES
    network, no_network = None, ""
    if metadata.quantization is not None:
        no_network = f"{source} is quantized, and PyTorch runs float networks; measure it with --on cpu."
    elif metadata.features:
        no_network = f"{source} is a backbone, and PyTorch would run the whole network; measure it with --on cpu."
    elif metadata.network is None:
        no_network = f"{source} does not say which network it was exported from, so PyTorch can't build it."
    else:
        try:
            network = Source(network=registry.find(metadata.network).name)
        except UsageError:
            no_network = f"{source} was exported from {metadata.network}, which is no network of the zoo."
    return _Model(
        source=source,
        size=size,
        raw=(*(_CAMERA if whole else (size, size)), 3) if image.raw else None,
        fixed_batch=image.batch,
        network=network,
        no_network=no_network,
    )


def _default_runtimes(model: _Model) -> tuple[str, ...]:
    return ("cpu",) if model.source.path else ("torch",)


def _plan(model: _Model, runtime: str, batch: int, threads: int, *, from_pixels: bool) -> Job | Failure:
    source: Source | None = model.source
    if model.fixed_batch not in (None, batch):
        return _unavailable(
            f"{model.source} takes batches of {model.fixed_batch} only; export it with `--batch dynamic`."
        )
    if runtime == "torch":
        source = model.network
    if source is None:
        return _unavailable(model.no_network)
    if model.raw is not None and runtime != "torch":
        return Job(source=source, runtime=runtime, shape=(batch, *model.raw), dtype="uint8", threads=threads)
    if from_pixels:
        shape = (batch, model.size, model.size, 3)
        before = Preprocessing(size=model.size)
        return Job(source=source, runtime=runtime, shape=shape, dtype="uint8", threads=threads, preprocessing=before)
    return Job(source=source, runtime=runtime, shape=(batch, 3, model.size, model.size), threads=threads)


def _row(model: _Model, runtime: str, batch: int, threads: int) -> Row:
    return Row(model=str(model.source), runtime=runtime, batch=batch, threads=threads)


def _unavailable(reason: str) -> Failure:
    return Failure(reason=reason, kind=UnavailableError.__name__)


def _fill(row: Row, outcome: Timing | Failure) -> Row:
    if isinstance(outcome, Timing):
        return replace(row, rounds=outcome.rounds, peak_memory_mib=outcome.peak_memory_mib)
    unavailable = outcome.kind == UnavailableError.__name__
    return replace(row, status=Status.UNAVAILABLE if unavailable else Status.FAILED, reason=outcome.reason)
