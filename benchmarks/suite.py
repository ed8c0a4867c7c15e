"""Models × runtimes × batch sizes, measured and compared: what ``rexport bench`` does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._cpu import this_cpu
from rexport._errors import UnavailableError, UsageError
from rexport._progress import silent
from rexport._words import suggestion
from rexport.benchmarks.document import BenchResult, Row, now
from rexport.benchmarks.interleave import measure
from rexport.benchmarks.jobs import Failure, Interrupted, Job, Timing
from rexport.benchmarks.machine import machine_facts
from rexport.benchmarks.noise import flags
from rexport.benchmarks.pictures import Gallery
from rexport.benchmarks.results import compare_with_first, timed
from rexport.benchmarks.subjects import Subject, examine
from rexport.benchmarks.verdicts import Shown, judge
from rexport.runtimes import ENGINE_RUNTIMES, NETWORK_RUNTIMES, RUNTIMES, default_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rexport._progress import Progress
    from rexport.benchmarks.pictures import Hung

__all__ = ["BenchInterrupted", "bench", "planned"]


class BenchInterrupted(KeyboardInterrupt):
    """Ctrl-C while benchmarking; ``result`` has what was measured by then, and says of the other rows why not."""

    def __init__(self, result: BenchResult) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A row to fill: what to measure for it or why that can't be, and the pictures that its model is shown."""

    subject: Subject
    row: Row
    plan: Job | Failure
    hung: Hung | None


def bench(
    sources: Sequence[str | Path | Source],
    *,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 8),
    threads: int | None = None,
    from_pixels: bool = False,
    on_device: bool = False,
    data: Path | None = None,
    samples: int = 256,
    shapes: Mapping[str, Sequence[int]] | None = None,
    min_seconds: float = 3.0,
    min_calls: int = 10,
    launches: int = 5,
    timeout: float = 120.0,
    progress: Progress = silent,
) -> BenchResult:
    """Measure how fast models run here, each in a process of its own, interleaved, and whether they agree.

    Speed is measured on random input, and PyTorch runs the network that a file was exported from, with fresh weights.
    Rows of one batch size are measured together and can be compared; each batch size gets new processes, so that a
    row's memory is its own. Every model's outputs for the same pictures are compared with the first one's (see
    ``outputs``).

    Args:
        sources: ONNX files, engine files and networks of the zoo. The first is what the others' speed-up refers to.
        runtimes: Names from :data:`rexport.runtimes.RUNTIMES`; by default ``cpu`` for ONNX files and ``torch`` for
            networks. Engine files have one runtime, and are measured on that.
        batches: Images per call.
        threads: Threads per model; by default all usable cores. Each process is kept on as many cores.
        from_pixels: Whether a call starts with the pixels of its images, uint8 and cut out, so that normalising them,
            in one thread of NumPy, belongs to it. Models that take them raw begin at once.
        on_device: Whether the images lie in the device's memory before a call begins.
        data: A labelled folder of pictures to measure accuracy on, and to compare outputs on; by default pictures are
            drawn.
        samples: The most pictures of it, evenly spread.
        shapes: The shapes of inputs of models that take no pictures, where they are open.
        min_seconds: The least time to measure each row, in seconds.
        min_calls: The fewest calls to time per row.
        launches: How often each row's process is started, over which both are spread (see ``intervals``).
        timeout: Seconds without an answer after which a process counts as hanging, and its row as failed.
        progress: Opens progress bars.

    Returns:
        A row for each batch size, model and runtime, in this order. What can't run here, or fails, has a row
        that says why.

    Raises:
        UsageError: No or unknown models or runtimes, or numbers below 1.
        ModelFileError: A file is not a model of images.
        EngineFileError: Nothing lies beside an engine file, or it is garbled.
        DataError: The pictures can't be read, or do not fit a model.
        BenchInterrupted: Ctrl-C was pressed; it has the result so far.
    """
    _check_numbers(min_seconds, min_calls, launches, timeout, samples)
    plans = _plans(sources, runtimes, batches, threads, from_pixels=from_pixels, shapes=shapes)
    empty = BenchResult(machine=machine_facts(), time=now(), drawn_pictures=data is None)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery(Path(folder), data=data, samples=samples)
        slots = [_slot(*plan, gallery, on_device=on_device) for plan in plans]
        empty = replace(empty, pictures=gallery.sample)
        for batch in dict.fromkeys(batches):
            part = [slot for slot in slots if slot.row.batch == batch]
            try:
                outcomes = measure(
                    [slot.plan for slot in part if isinstance(slot.plan, Job)],
                    min_seconds=min_seconds,
                    min_calls=min_calls,
                    launches=launches,
                    timeout=timeout,
                    progress=progress,
                )
            except Interrupted as error:
                rows += _rows(part, error.outcomes)
                rows += _rows(slots[len(rows) :], [])
                raise BenchInterrupted(replace(empty, rows=tuple(rows))) from error
            rows += _rows(part, outcomes)
    return replace(empty, rows=tuple(rows))


def planned(
    sources: Sequence[str | Path | Source],
    *,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    from_pixels: bool = False,
) -> tuple[tuple[Row, Job | Failure], ...]:
    """Return the rows that :func:`bench` would measure, each with what to measure, or why that can't be.

    Raises:
        UsageError: No or unknown models or runtimes, or numbers below 1.
        ModelFileError: A file is not a model of images.
    """
    plans = _plans(sources, runtimes, batches, threads, from_pixels=from_pixels)
    return tuple((row, plan) for _, row, plan in plans)


def _plans(
    sources: Sequence[str | Path | Source],
    runtimes: Sequence[str] | None,
    batches: Sequence[int],
    threads: int | None,
    *,
    from_pixels: bool,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[tuple[Subject, Row, Job | Failure]]:
    _check_arguments(sources, runtimes, batches, threads)
    parsed = [source if isinstance(source, Source) else Source.parse(str(source)) for source in sources]
    subjects = [examine(source, shapes) for source in parsed]
    cores = threads or this_cpu().cores
    return [
        (
            subject,
            _row(subject, runtime, batch, cores),
            _plan(subject, runtime, batch, cores, from_pixels=from_pixels),
        )
        for batch in dict.fromkeys(batches)
        for subject in subjects
        for runtime in _runtimes(subject, runtimes)
    ]


def _check_arguments(
    sources: Sequence[str | Path | Source],
    runtimes: Sequence[str] | None,
    batches: Sequence[int],
    threads: int | None,
) -> None:
    if not sources:
        raise UsageError("Name at least one ONNX file or network to measure.")
    for name in runtimes or ():
        if name not in RUNTIMES:
            hint = suggestion(name, RUNTIMES)
            raise UsageError(f"There is no runtime {name!r}; choose from {', '.join(RUNTIMES)}.{hint}")
    if not batches or min(batches) < 1:
        raise UsageError("A batch must have at least 1 image.")
    if threads is not None and threads < 1:
        raise UsageError(f"The number of threads must be at least 1, not {threads}.")


def _check_numbers(min_seconds: float, min_calls: int, launches: int, timeout: float, samples: int) -> None:
    if min_calls < 1 or not 0 <= min_seconds < float("inf"):
        raise UsageError("A row needs at least 1 call and 0 seconds.")
    if launches < 1:
        raise UsageError(f"The number of launches must be at least 1, not {launches}.")
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout takes a number of seconds above 0, not {timeout:g}.")
    if samples < 1:
        raise UsageError(f"The number of pictures must be at least 1, not {samples}.")


def _runtimes(subject: Subject, requested: Sequence[str] | None) -> tuple[str, ...]:
    """Return what a model is measured on: an engine, whatever was asked for, on the only runtime that can."""
    default = default_runtime(subject.source)
    if default in ENGINE_RUNTIMES.values() or not requested:
        return (default,)
    return tuple(requested)


def _slot(subject: Subject, row: Row, plan: Job | Failure, gallery: Gallery, *, on_device: bool) -> _Slot:
    if isinstance(plan, Failure):
        return _Slot(subject=subject, row=row, plan=plan, hung=None)
    preprocessing = subject.takes_on(row.runtime)
    hung = gallery.show(row.model, preprocessing, subject.tensors)
    return _Slot(subject=subject, row=row, plan=replace(plan, on_device=on_device, pictures=hung.pictures), hung=hung)


def _row(subject: Subject, runtime: str, batch: int, threads: int) -> Row:
    """Return the row before anything is measured."""
    cautions = () if runtime in NETWORK_RUNTIMES else subject.cautions
    return Row(model=str(subject.source), runtime=runtime, batch=batch, threads=threads, flags=cautions)


def _plan(subject: Subject, runtime: str, batch: int, threads: int, *, from_pixels: bool) -> Job | Failure:
    if subject.fixed_batch not in (None, batch):
        return _unavailable(
            f"{subject.source} takes batches of {subject.fixed_batch} only; export it with `--batch dynamic`."
        )
    if subject.batches is not None and batch not in subject.batches:
        return _unavailable(
            f"{subject.source} takes batches of {subject.batches.start} to {subject.batches.stop - 1}; build it with "
            "another `--batch MIN:OPT:MAX`."
        )
    source = subject.on(runtime)
    if source is None:
        return _unavailable(subject.no_network)
    preprocessing = subject.takes_on(runtime)
    if preprocessing is None:
        for tensor in subject.tensors:
            tensor.at(batch)  # refuses open sizes
        return Job(source=source, runtime=runtime, shape=(batch,), threads=threads, tensors=subject.tensors)
    before = None
    shape, dtype = preprocessing.trial_shape, preprocessing.dtype
    if from_pixels and not preprocessing.takes.raw:
        shape, dtype, before = preprocessing.shape, "uint8", preprocessing
    return Job(
        source=source, runtime=runtime, shape=(batch, *shape), dtype=dtype, threads=threads, preprocessing=before
    )


def _unavailable(reason: str) -> Failure:
    return Failure(reason=reason, kind=UnavailableError.__name__)


def _rows(slots: Sequence[_Slot], outcomes: Sequence[Timing | Failure]) -> tuple[Row, ...]:
    """Return the rows of one batch size; outcomes that are missing were not measured for Ctrl-C."""
    remaining = iter(outcomes)
    never = Failure(reason="It was interrupted before it was measured.", kind="KeyboardInterrupt")
    rows, answers = [], []
    for slot in slots:
        outcome = slot.plan if isinstance(slot.plan, Failure) else next(remaining, never)
        rows.append(_fill(slot.row, outcome))
        answers.append(_answer(slot, outcome))
    return judge(compare_with_first(rows), answers)


def _answer(slot: _Slot, outcome: Timing | Failure) -> Shown | None:
    """Return the outputs for the pictures that a model was shown, if there are any."""
    if isinstance(outcome, Failure) or outcome.outputs is None or slot.hung is None:
        return None
    return Shown(outputs=outcome.outputs, subject=slot.subject, runtime=slot.row.runtime, hung=slot.hung)


def _fill(row: Row, outcome: Timing | Failure) -> Row:
    if isinstance(outcome, Failure):
        return replace(row, **outcome.row_fields())
    return replace(
        timed(row, outcome.rounds, outcome.launches),
        peak_memory_mib=outcome.peak_memory_mib,
        load_seconds=outcome.load_seconds,
        first_call_seconds=outcome.first_call_seconds,
        warm_up_calls=outcome.warm_up_calls,
        affinity=outcome.affinity,
        phases_ms=outcome.phases_ms,
        flags=(*row.flags, *flags(outcome.rounds, outcome.clocks)),
    )
