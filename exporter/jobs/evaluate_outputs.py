"""Evaluating files that are no classifiers of pictures: all outputs against a reference's, and a metric of the user's.

Where the data has labels and the output is one score per class, there is top-1 too.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._apart import require_exists
from rexport._errors import UnavailableError, UsageError
from rexport._words import counted, percent
from rexport.calibration.dataset import note_skipped, spread
from rexport.calibration.workers import LocalWorkers
from rexport.evaluation.candidate import candidate_of
from rexport.evaluation.divergence import find_divergence
from rexport.evaluation.judging import judging_runtime
from rexport.evaluation.outputs import OutputTotals, Predictions, metric_named, predictions
from rexport.evaluation.reference import Reference
from rexport.evaluation.result import db_in_words
from rexport.feeds import examples_in, first_examples
from rexport.jobs.examples import open_examples, picture_preprocessing
from rexport.jobs.result import JobResult, Table
from rexport.model_file import load
from rexport.model_inputs import fixed_batch
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx_ir as ir

    from rexport._progress import Note, Progress
    from rexport.calibration import Dataset
    from rexport.calibration.dataset import BadImage
    from rexport.evaluation import DivergenceReport
    from rexport.evaluation.outputs import OutputComparison
    from rexport.feeds import Feed
    from rexport.jobs.evaluate import EvaluateRequest

    Run = Callable[[Feed], list[np.ndarray]]

__all__ = ["OutputsResult", "evaluate_outputs"]

_KEPT_BYTES = 256 * 2**20  # of the reference's outputs; maps of many pictures are larger


@dataclass(frozen=True, kw_only=True, repr=False)
class OutputsResult(JobResult):
    """How the outputs of a file compare, and the user's metric.

    Attributes:
        request: The request.
        runtime: The runtime of the model.
        examples: The number of examples.
        outputs: Each output against the reference's; empty without one.
        top1: The share of examples whose largest score is the label's; ``None`` without labels or scores.
        reference_top1: Likewise, of the reference.
        metric: The user's metric of the model.
        reference_metric: Likewise, of the reference.
        divergence: The first layer that differs, if requested.
        skipped: The number of images that can't be read.
    """

    request: EvaluateRequest
    runtime: str
    examples: int
    outputs: tuple[OutputComparison, ...]
    top1: float | None
    reference_top1: float | None
    metric: float | None
    reference_metric: float | None
    divergence: DivergenceReport | None
    skipped: int

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.eval/1``."""
        request = self.request
        document: dict[str, Any] = {
            "schema": "rexport.eval/1",
            "model": request.model,
            "images": self.examples,
            "skipped": self.skipped,
            "top1": self.top1,
            "top5": None,
        }
        if request.metric is not None:
            document["metric"] = {"function": request.metric, "value": self.metric, "reference": self.reference_metric}
        if request.reference is not None:
            document |= {
                "reference": str(request.reference),
                "reference_top1": self.reference_top1,
                "outputs": [output.to_json() for output in self.outputs],
            }
        if self.divergence is not None:
            document["divergence"] = self.divergence.to_json()
        return document

    def facts(self) -> dict[str, str]:
        """Return the accuracy, or the metric, and the reference's."""
        facts = {}
        if self.top1 is not None:
            facts["top-1"] = percent(self.top1) + _than(self.reference_top1, percent)
        if self.metric is not None:
            name = str(self.request.metric).rpartition(":")[2]
            facts[name] = f"{self.metric:.6g}" + _than(self.reference_metric, "{:.6g}".format)
        if self.outputs:
            worst = min(self.outputs, key=lambda output: output.sqnr_db)
            facts["SQNR"] = f"{db_in_words(worst.sqnr_db)} against {self.request.reference}"
            if len(self.outputs) > 1:
                facts["SQNR"] += f" in {worst.name}, the worst of {len(self.outputs)} outputs"
        return facts

    def as_table(self) -> Table | None:
        """Return the outputs."""
        rows = [
            (output.name, db_in_words(output.sqnr_db), f"{output.cosine:.6f}", f"{output.max_difference:.2e}")
            for output in self.outputs
        ]
        return Table(("output", "SQNR", "cosine", "max difference"), rows) if rows else None


def _than(reference: float | None, in_words: Callable[[float], str]) -> str:
    return "" if reference is None else f" (reference {in_words(reference)})"


def evaluate_outputs(
    request: EvaluateRequest, model: ir.Model, path: Path, progress: Progress, note: Note
) -> OutputsResult:
    """Run a file, and its reference, on all examples.

    Raises:
        UsageError: There is neither a reference nor a metric nor labels, or an option is for classifiers of pictures.
        DataError: Examples can't be read, or the metric fails.
        ModelFileError: A file can't be read, or the outputs have other shapes.
        UnavailableError: The runtime can't be used here, or gives the first output only.
    """
    _refuse_options_of_classifiers(request, path)
    preprocessing = picture_preprocessing(model, path, (request.data,), request.options, note)
    dataset = open_examples(request.data, model, path, preprocessing)
    if request.reference is not None:
        require_exists(request.reference)
    elif request.metric is None and not dataset.labelled:
        raise UsageError(
            f"{path} is no classifier of pictures: pass --reference FILE to compare its outputs with, or --metric "
            "module:function."
        )
    runtime = request.runtime or judging_runtime(model)
    work = _Work(request, dataset, model, progress)
    measured = work.measure_both(runtime, path)
    note_skipped(tuple(work.skipped), note)
    totals, is_compared = measured.totals, request.reference is not None
    return OutputsResult(
        request=request,
        runtime=runtime,
        examples=totals.examples,
        outputs=tuple(output.comparison() for output in totals.outputs) if is_compared else (),
        top1=totals.share(totals.right),
        reference_top1=totals.share(totals.reference_right) if is_compared else None,
        metric=measured.metric,
        reference_metric=measured.reference_metric,
        divergence=_divergence(request, path, runtime, dataset, progress),
        skipped=len(work.skipped),
    )


def _refuse_options_of_classifiers(request: EvaluateRequest, path: Path) -> None:
    options = {
        "--per-class": request.per_class,
        "--worst": bool(request.worst),
        "--report": request.html is not None,
        "--workers": not isinstance(request.workers, LocalWorkers | None),
        "--crops and --scales": request.views.count > 1,
    }
    for option, is_given in options.items():
        if is_given:
            raise UsageError(f"{option} is for classifiers of pictures, and {path} is none; leave it out.")


def _all_outputs(stack: ExitStack, runtime: str, path: Path, threads: int | None) -> Run:
    loaded = stack.enter_context(open_runtime(runtime, Source(path=path), threads=threads))
    run = getattr(loaded, "run_all", None)
    if run is None:
        raise UnavailableError(f"--on {runtime} gives the first output only; evaluate {path} on cpu or openvino.")
    return run  # type: ignore[no-any-return]


class _Totals:
    """What is added up over the batches."""

    def __init__(self, names: list[str]) -> None:
        self.outputs = [OutputTotals(name) for name in names]
        self.examples = self.labelled = self.right = self.reference_right = 0

    def add(self, batch: Predictions, expected: list[np.ndarray] | None) -> None:
        self.examples += examples_in(batch.feed)
        actual = list(batch.outputs.values())
        for output, reference, result in zip(self.outputs, expected or [], actual, strict=False):
            output.add(reference, result)
        labels = batch.labels
        if labels is None or len(actual) != 1 or actual[0].ndim != 2 or actual[0].shape[1] < 2:
            return
        self.labelled += len(labels)
        self.right += int((actual[0].argmax(axis=1) == labels).sum())
        if expected is not None:
            self.reference_right += int((expected[0].argmax(axis=1) == labels).sum())

    def share(self, right: int) -> float | None:
        return right / self.labelled if self.labelled else None


@dataclass(frozen=True)
class _Measured:
    totals: _Totals
    metric: float | None
    reference_metric: float | None


def _kept(run: Run) -> tuple[Run, Run]:
    """Return ``run``, and a function that gives the same outputs for the same batches again, without running most."""
    stored: deque[list[np.ndarray]] = deque()
    size = 0

    def first(feed: Feed) -> list[np.ndarray]:
        nonlocal size
        outputs = run(feed)
        size += sum(output.nbytes for output in outputs)
        if size <= _KEPT_BYTES:
            stored.append(outputs)
        return outputs

    def replay(feed: Feed) -> list[np.ndarray]:
        return stored.popleft() if stored else run(feed)

    return first, replay


class _Work:
    """Runs files on the examples of a request."""

    def __init__(self, request: EvaluateRequest, dataset: Dataset, model: ir.Model, progress: Progress) -> None:
        self._request, self._dataset, self._progress = request, dataset, progress
        self._names = [str(value.name) for value in model.graph.outputs]
        self._batch = fixed_batch(model) or request.batch
        self.skipped: dict[BadImage, None] = {}

    def measure_both(self, runtime: str, path: Path) -> _Measured:
        """Run the file and the reference, if there is one, on all examples."""
        request, totals = self._request, _Totals(self._names)
        with ExitStack() as stack:
            if request.reference is None:
                run = _all_outputs(stack, runtime, path, request.threads)
                return _Measured(totals, self._measure(run, None, totals), None)
            reference = _all_outputs(stack, "cpu", request.reference, request.threads)
            run = _all_outputs(stack, runtime, path, request.threads)
            if request.metric is None:
                return _Measured(totals, self._measure(run, reference, totals), None)
            reference, replay = _kept(reference)
            value = self._measure(run, reference, totals)
            return _Measured(totals, value, self._measure(replay, None, _Totals(self._names)))

    def _measure(self, run: Run, run_reference: Run | None, totals: _Totals) -> float | None:
        """Add up the outputs of all examples, and return the user's metric of them, if there is one."""
        request = self._request
        with self._progress("evaluating", len(spread(len(self._dataset), request.samples))) as advance:

            def batches() -> Iterator[Predictions]:
                for batch in predictions(
                    run,
                    self._names,
                    self._dataset,
                    batch=self._batch,
                    samples=request.samples,
                    skip_bad=request.skip_bad,
                    skipped=self.skipped,
                ):
                    totals.add(batch, None if run_reference is None else run_reference(batch.feed))
                    advance(examples_in(batch.feed))
                    yield batch

            if request.metric is not None:
                return metric_named(request.metric)(batches())
            for _ in batches():
                pass
        return None


def _divergence(
    request: EvaluateRequest, path: Path, runtime: str, dataset: Dataset, progress: Progress
) -> DivergenceReport | None:
    if not request.find_divergence:
        return None
    few = first_examples(next(iter(dataset.batches(4, samples=4, skip_bad=request.skip_bad))).feed, 4)
    if not isinstance(few, np.ndarray):
        raise UsageError(f"--find-divergence is for models of one input, and {path} has {counted(len(few), 'input')}.")
    reference = request.reference or path
    return find_divergence(
        Reference(load(reference), few, threads=request.threads),
        candidate_of(path, few, runtime=runtime, reference=reference, threads=request.threads),
        progress=progress,
    )
