"""Evaluating: accuracy on labelled images, and agreement with a reference, down to the first layer that differs.

describe the model and the reference → open the images → evaluate, in workers or here → find the divergence → write the
report
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._errors import ModelFileError, UsageError
from rexport._files import check_writable, write_text
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import percent
from rexport.calibration import CenterCrop, Dataset, Views, WholePictures, open_dataset
from rexport.calibration.dataset import note_skipped
from rexport.calibration.workers import LocalWorkers, choose_workers
from rexport.engine_file import is_engine, read_facts
from rexport.evaluation import (
    Classifier,
    ClassifierFile,
    DivergenceReport,
    Evaluation,
    Reference,
    evaluate,
    find_divergence,
)
from rexport.evaluation.candidate import candidate_of
from rexport.evaluation.result import finite
from rexport.imagenet import imagenet_classes, imagenet_outputs
from rexport.jobs._evaluation_page import page_of
from rexport.jobs.classifiers import ClassifierFacts, choose_runtime, describe, describe_reference
from rexport.jobs.evaluate_outputs import OutputsResult, evaluate_outputs
from rexport.jobs.examples import takes_pictures
from rexport.jobs.result import JobResult, Table
from rexport.model_file import load
from rexport.pages import require_extra
from rexport.preprocessing import PictureOptions, Preprocessing, Takes, size_in_words
from rexport.runtimes import NODE_BY_NODE, open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from rexport.calibration.workers import Workers
    from rexport.evaluation.result import Mistake
    from rexport.evaluation.scores import Prepare

__all__ = ["EvaluateRequest", "EvaluateResult", "evaluate_classifier", "run"]

_IN_WORKERS = ("cpu", NODE_BY_NODE)  # the runtimes that all workers have
_PICTURES = 12  # the fewest mistakes in a report


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The settings of an evaluation.

    Attributes:
        model: An ONNX file, an engine file, or the name of a network.
        data: Images: ``DIR/<class>/<image>``, a flat folder, or an ``.npy`` or ``.npz`` file.
        weights: The weights of a network.
        reference: An ONNX file to compare with.
        runtime: The runtime of the model; by default that of its target (see ``rexport.evaluation.judging``).
        find_divergence: Find the first layer that differs from the reference; without one, from the file itself.
        views: The crops or scales of a picture that are averaged.
        batch: Images per batch.
        samples: Only so many images, evenly spread.
        per_class: Give the accuracy of each class and the confusion matrix.
        worst: The number of mistakes to list, those of the highest probability first.
        skip_bad: Go on without images that can't be read.
        options: Overrides of the preprocessing that the model states.
        workers: The workers that run a file; by default this process.
        threads: The threads of a runtime in this process; by default one per usable core.
        metric: A function of the user's, ``module:function`` (see :mod:`rexport.evaluation.outputs`).
        html: Where a report goes, with the confusion matrix and the most confident mistakes.
        command: The command line, for the report.

    Raises:
        UsageError: The values do not go together.
    """

    model: str = field(metadata=READ)
    data: Path = field(metadata=READ_IMAGES)
    weights: Path | None = field(default=None, metadata=READ)
    reference: Path | None = field(default=None, metadata=READ)
    runtime: str | None = None
    find_divergence: bool = False
    views: Views = field(default_factory=CenterCrop)
    batch: int = 32
    samples: int | None = None
    per_class: bool = False
    worst: int = 0
    skip_bad: bool = False
    options: PictureOptions = field(default_factory=PictureOptions)
    workers: Workers | None = None
    threads: int | None = None
    metric: str | None = None
    html: Path | None = field(default=None, metadata=WRITE)
    command: str | None = None

    @property
    def mistakes(self) -> int:
        """The number of mistakes to find: those to list, or more for the report."""
        return self.worst if self.html is None else max(self.worst, _PICTURES)

    def __post_init__(self) -> None:
        if isinstance(self.views, WholePictures) and self.options.resize is not None:
            raise UsageError("--scales takes whole pictures and says how large, so --resize means nothing with it.")


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluateResult(JobResult):
    """The result of an evaluation.

    Attributes:
        request: The request.
        runtime: The runtime of the model.
        reference: The file that it was compared with, if any.
        evaluation: Its accuracy, and its agreement with the reference.
        divergence: The first layer that differs, if requested.
        classes: The names of the outputs, in order; empty if nobody states them.
    """

    request: EvaluateRequest
    runtime: str
    reference: Path | None
    evaluation: Evaluation
    divergence: DivergenceReport | None
    classes: tuple[str, ...] = ()

    def class_name(self, index: int) -> str:
        """Return the name of an output, or its index if it has none."""
        return self.classes[index] if index < len(self.classes) else str(index)

    @property
    def worst(self) -> tuple[Mistake, ...]:
        """The mistakes that the request lists; a report shows more."""
        return self.evaluation.worst[: self.request.worst]

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.eval/1``."""
        views, evaluation = self.request.views, self.evaluation
        crops, scales = (None, views.scales) if isinstance(views, WholePictures) else (views.count, None)
        document: dict[str, Any] = {
            "schema": "rexport.eval/1",
            "model": self.request.model,
            "images": evaluation.images,
            "crops": crops,
            "scales": scales,
            "skipped": len(evaluation.skipped),
            "top1": evaluation.top1,
            "top1_interval": evaluation.top1_interval,
            "top5": evaluation.top5,
        }
        comparison = evaluation.comparison
        if comparison is not None:
            document |= {
                "reference": str(self.reference),
                "reference_top1": comparison.reference_top1,
                "agreement": comparison.agreement,
                "scores": comparison.scores,
                "sqnr_db": finite(comparison.sqnr_db),
            }
        if self.request.per_class and evaluation.classes:
            document |= self._per_class()
        if self.request.worst:
            document["worst"] = [
                {
                    "image": mistake.image,
                    "label": self.class_name(mistake.label),
                    "prediction": self.class_name(mistake.prediction),
                    "probability": mistake.probability,
                }
                for mistake in self.worst
            ]
        if self.divergence is not None:
            document["divergence"] = self.divergence.to_json()
        return document

    @property
    def top1(self) -> float | None:
        """The fraction of images whose likeliest class is right; ``None`` without labels."""
        return self.evaluation.top1

    def facts(self) -> dict[str, str]:
        """Return the accuracy, and how the model compares with the reference."""
        evaluation, comparison = self.evaluation, self.evaluation.comparison
        facts = {}
        if evaluation.top1 is not None and evaluation.top1_interval is not None:
            low, high = map(percent, evaluation.top1_interval)
            right = round(evaluation.top1 * evaluation.images)
            facts["top-1"] = f"{percent(evaluation.top1)}  ({right} right; 95 % interval {low} to {high})"
        if evaluation.top5 is not None:
            facts["top-5"] = percent(evaluation.top5)
        if comparison is None:
            return facts
        facts["agreement"] = f"{percent(comparison.agreement)} of top-1 with {self.reference}"
        facts["SQNR"] = f"{comparison.sqnr_db:.1f} dB ({comparison.scores})"
        if evaluation.top1 is not None and comparison.reference_top1 is not None:
            change = 100 * (evaluation.top1 - comparison.reference_top1)
            facts["change"] = f"{change:+.2f} points of top-1 (reference {percent(comparison.reference_top1)})"
        return facts

    def as_table(self) -> Table | None:
        """Return the accuracy of each class, the worst first, if it was asked for."""
        if not self.request.per_class:
            return None
        rows = [
            (self.class_name(counts.index), percent(counts.accuracy), str(counts.right), str(counts.images))
            for counts in self.evaluation.worst_classes
        ]
        return Table(("class", "accuracy", "right", "images"), rows)

    def _per_class(self) -> dict[str, Any]:
        """Return the keys ``classes`` and ``confusion``; a row of that for each label, a column for each prediction."""
        evaluation, outputs = self.evaluation, range(self.evaluation.outputs)
        return {
            "classes": [
                {
                    "name": self.class_name(counts.index),
                    "images": counts.images,
                    "right": counts.right,
                    "accuracy": counts.accuracy,
                }
                for counts in evaluation.classes
            ],
            "confusion": [[evaluation.confusion[label, prediction] for prediction in outputs] for label in outputs],
        }


def run(
    request: EvaluateRequest, *, progress: Progress = silent, note: Note = unsaid
) -> EvaluateResult | OutputsResult:
    """Evaluate a model: a classifier of pictures, or the outputs of any other file.

    Raises:
        UsageError: The values do not fit the model.
        DataError: Images can't be read, or their folders do not fit the model's outputs.
        ModelFileError: A file can't be read, or is no classifier.
        UnavailableError: The runtime can't be used here, or the packages for reports are not installed.
        OutputError: The report can't be written.
        RexportError: Workers are lost again and again.
    """
    require_files_apart(request)
    path = Source.parse(request.model, weights=request.weights).path
    model = None
    if path is not None and not is_engine(path):
        model = load(path)
        if not _is_classifier(model, path, request):
            return evaluate_outputs(request, model, path, progress, note)
    return evaluate_classifier(request, progress=progress, note=note, loaded=model)


def evaluate_classifier(
    request: EvaluateRequest, *, progress: Progress = silent, note: Note = unsaid, loaded: ir.Model | None = None
) -> EvaluateResult:
    """Evaluate a classifier of pictures, in a file that may be ``loaded`` already; see :func:`run`."""
    notes: list[str] = []
    if request.html is not None:
        check_writable(request.html)
        require_extra()
        note = _recording(note, notes)
    work = _plan(request, progress, note, loaded)
    evaluation = work.evaluate()
    note_skipped(evaluation.skipped, note)
    result = EvaluateResult(
        request=request,
        runtime=work.runtime,
        reference=None if work.reference is None else work.reference.path,
        evaluation=evaluation,
        divergence=work.find_divergence(),
        classes=_classes(work.model, work.dataset, evaluation.outputs),
    )
    if request.html is not None:
        write_text(request.html, page_of(result, work.model.preprocessing, work.dataset, notes))
    return result


def _is_classifier(model: ir.Model, path: Path, request: EvaluateRequest) -> bool:
    """Say whether a file is evaluated as a classifier of pictures, and not by a metric of the user's."""
    scores = model.graph.outputs[0].shape
    gives_scores = len(model.graph.outputs) == 1 and (scores is None or len(scores) == 2)
    return request.metric is None and gives_scores and takes_pictures(model, path, (request.data,), request.options)


def _recording(note: Note, notes: list[str]) -> Note:
    """Return a function that says a note and keeps it."""

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    return keep


@dataclass(frozen=True)
class _Work:
    """An evaluation that can begin; ``dataset`` gives images prepared by ``common``."""

    request: EvaluateRequest
    model: ClassifierFacts
    reference: ClassifierFacts | None
    runtime: str
    workers: Workers
    dataset: Dataset
    common: Preprocessing
    progress: Progress

    def evaluate(self) -> Evaluation:
        """Run a file in the workers if they have its runtime, and anything else here."""
        request, model = self.request, self.model
        with ExitStack() as stack:
            classifier: Classifier | ClassifierFile
            if model.source.path is not None and self.runtime in _IN_WORKERS:
                classifier = self._file(model, self.runtime)
            else:
                loaded = stack.enter_context(open_runtime(self.runtime, model.source, threads=self.workers.threads))
                classifier = Classifier(runtime=loaded, head=model.head, prepare=self._prepare(model))
            return evaluate(
                classifier,
                self.dataset,
                classes=model.classes,
                reference=None if self.reference is None else self._file(self.reference, "cpu"),
                views=request.views,
                batch=model.batch or request.batch,
                samples=request.samples,
                skip_bad=request.skip_bad,
                worst=request.mistakes,
                workers=self.workers,
                progress=self.progress,
            )

    def find_divergence(self) -> DivergenceReport | None:
        """Look for the first layer that differs from the reference, computed node by node, if that is requested."""
        if not self.request.find_divergence:
            return None
        assert self.reference is not None
        path, threads = self.reference.path, self.request.threads
        return find_divergence(
            Reference(load(path), self._few_images(self.reference), threads=threads),
            candidate_of(
                self.model.path, self._few_images(self.model), runtime=self.runtime, reference=path, threads=threads
            ),
            progress=self.progress,
        )

    def _file(self, model: ClassifierFacts, runtime: str) -> ClassifierFile:
        return ClassifierFile(path=model.path, head=model.head, prepare=self._prepare(model), runtime=runtime)

    def _prepare(self, model: ClassifierFacts) -> Prepare | None:
        """Return what makes the images of the data set those that a model takes."""
        if self.common == model.preprocessing:
            return None
        if self.common.takes is Takes.PICTURES:
            return model.preprocessing.of_pictures
        return model.preprocessing.to_input

    def _few_images(self, model: ClassifierFacts) -> np.ndarray:
        """Return as many images as the evaluated model insists on, or up to four, as ``model`` takes them."""
        count = min(self.model.batch or 4, len(self.dataset))
        batches = self.dataset.batches(count, samples=count, skip_bad=self.request.skip_bad)
        images, prepare = next(iter(batches)).images, self._prepare(model)
        if prepare is None:
            return images
        return prepare(images)


def _plan(request: EvaluateRequest, progress: Progress, note: Note, loaded: ir.Model | None) -> _Work:
    """Describe the models and open the images, and refuse what does not go together."""
    source = Source.parse(request.model, weights=request.weights)
    model = describe(source, request.options, note, loaded=loaded)
    _require_views(model, request.views)
    workers = request.workers or choose_workers(threads=request.threads)
    runtime = request.runtime or choose_runtime(model, note, in_workers=not isinstance(workers, LocalWorkers))
    _require_fitting(source, runtime, workers)
    request.views.require(model.preprocessing)
    path, reference = _to_compare_with(model, request), None
    if path is not None:
        reference = describe_reference(path, model, request.options, note)
        _require_views(reference, request.views)
    dataset, common = _open(request.data, model, reference, note)
    _require_labels(request, dataset)
    return _Work(request, model, reference, runtime, workers, dataset, common, progress)


def _require_views(model: ClassifierFacts, views: Views) -> None:
    if isinstance(views, WholePictures) and model.size is not None:
        raise ModelFileError(
            f"{model.source} takes pictures of {size_in_words(model.size)} only, and --scales needs a file for any "
            "size; export the network with --any-size."
        )


def _require_labels(request: EvaluateRequest, dataset: Dataset) -> None:
    if dataset.labelled or not (request.per_class or request.worst):
        return
    option = "--per-class" if request.per_class else "--worst"
    raise UsageError(f"{option} needs labelled images, a folder per class, and those in {request.data} have no labels.")


def _require_fitting(source: Source, runtime: str, workers: Workers) -> None:
    if isinstance(workers, LocalWorkers):
        return
    if source.path is None:
        raise UsageError(
            f"--workers runs ONNX files, and {source} is a network of PyTorch; export it with `rexport onnx`, or leave "
            "--workers out."
        )
    if runtime not in _IN_WORKERS:
        raise UsageError(f"--workers runs files on ONNX Runtime's CPU provider; leave it or --on {runtime} out.")


def _to_compare_with(model: ClassifierFacts, request: EvaluateRequest) -> Path | None:
    """Return the reference; where a divergence is to be found without one, the file itself, node by node on the CPU."""
    if not request.find_divergence:
        return request.reference
    if model.source.path is None:
        raise UsageError(
            f"--find-divergence compares files, and {model.source} is a network; export it with `rexport onnx`."
        )
    if model.preprocessing.takes is Takes.PICTURES:
        raise UsageError(
            f"{model.path} resizes its pictures itself, so the sizes of its tensors are not known; use "
            "--find-divergence with a file from before --resize-in-graph."
        )
    if request.reference is None and is_engine(model.path):
        origin = read_facts(model.path).onnx
        raise UsageError(f"--find-divergence takes the file that {model.path} was built from: --reference {origin}.")
    return request.reference or model.path


def _classes(model: ClassifierFacts, dataset: Dataset, outputs: int) -> tuple[str, ...]:
    """Return the names of the outputs, in order; empty if nobody states them."""
    folders = dataset.classes or ()
    names = imagenet_classes()
    if not model.classes and outputs == len(names) and imagenet_outputs(folders, ()) is not None:
        return names
    return model.classes or folders


def _open(
    data: Path, model: ClassifierFacts, reference: ClassifierFacts | None, note: Note
) -> tuple[Dataset, Preprocessing]:
    """Return the images as both models can take them after further preparation, and their preprocessing so far."""
    common = _common_preprocessing({facts.preprocessing for facts in (model, reference) if facts is not None})
    dataset, classes = open_dataset(data, common), model.classes
    if not dataset.classes or set(dataset.classes) <= set(classes):
        return dataset, common
    if imagenet_outputs(dataset.classes, classes) is not None:
        note(f"the classes in {data} are WordNet ids; ImageNet's 1,000 outputs are in the order of the sorted ids.")
    elif classes:
        note(
            f"the folders in {data} are not named as the model's classes ({classes[0]} … {classes[-1]}); taking them, "
            "sorted by name, for its outputs in order."
        )
    return dataset, common


def _common_preprocessing(preprocessings: set[Preprocessing]) -> Preprocessing:
    """Return the most preprocessing that all of ``preprocessings`` begin with."""
    common = max(preprocessings, key=lambda preprocessing: len(preprocessing.takes.in_graph))
    if len(preprocessings) == 1:
        return common
    takes = common.takes
    if len({(p.shape, p.resize, p.interpolation) for p in preprocessings}) > 1:
        takes = Takes.PICTURES  # each model crops its own
    elif takes is Takes.NORMALISED:
        takes = Takes.PIXELS
    return replace(common, takes=takes, layout=None)
