"""Evaluating ONNX files with a data set in shards, on any workers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._progress import Progress, silent
from rexport.calibration import CenterCrop, Views
from rexport.calibration.decoding import UnreadableError
from rexport.calibration.sharding import name_all_bad, shards_of
from rexport.calibration.workers import choose_workers
from rexport.evaluation.judge import Judge, Verdict, compared_scores, require_something_to_measure
from rexport.evaluation.result import Counts, Evaluation
from rexport.evaluation.scores import Classifier, Prepare
from rexport.model_file import Head
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rexport.calibration import BadImage, Dataset
    from rexport.calibration.sharding import Shard
    from rexport.calibration.workers import Workers

__all__ = ["ClassifierFile", "evaluate_file"]

_MIDDLE = CenterCrop()


@dataclass(frozen=True, kw_only=True)
class ClassifierFile:
    """An ONNX file, and what it takes and gives.

    Attributes:
        path: The file.
        head: What its output is.
        prepare: What makes the images of a data set its input, if they are not; something that can be pickled.
        runtime: The name of what runs it (see :data:`rexport.runtimes.RUNTIMES`).
    """

    path: Path
    head: Head = Head.LOGITS
    prepare: Prepare | None = None
    runtime: str = "cpu"

    def open(self, *, probabilities: bool, threads: int) -> Classifier:
        """Load it."""
        # parsed anew: a worker may be on a machine that has no such file
        runtime = open_runtime(self.runtime, Source.parse(str(self.path)), threads=threads)
        return Classifier(runtime=runtime, head=self.head, probabilities=probabilities, prepare=self.prepare)


@dataclass(frozen=True, kw_only=True)
class _EvaluateShard:
    """The work: judge the images of a shard."""

    model: ClassifierFile
    reference: ClassifierFile | None
    classes: tuple[str, ...]
    views: Views
    batch: int
    skip_bad: bool
    probabilities: bool
    threads: int

    def open(self) -> Callable[[Shard], Verdict]:
        """Load the models, and return what runs a shard through them."""
        judge = Judge(
            model=self.model.open(probabilities=self.probabilities, threads=self.threads),
            reference=None
            if self.reference is None
            else self.reference.open(probabilities=self.probabilities, threads=self.threads),
            classes=self.classes,
            views=self.views,
            batch=self.batch,
        )
        return lambda shard: self._judge(judge, shard.dataset)

    def _judge(self, judge: Judge, dataset: Dataset) -> Verdict:
        try:
            return judge.judge(dataset, skip_bad=self.skip_bad)
        except UnreadableError as error:
            if not self.skip_bad:
                raise
            return Verdict(counts=Counts(), outputs=0, skipped=error.bad)  # not one image of the shard can be read


def evaluate_file(
    model: ClassifierFile,
    dataset: Dataset,
    *,
    classes: Sequence[str] = (),
    reference: ClassifierFile | None = None,
    views: Views = _MIDDLE,
    batch: int = 32,
    samples: int | None = None,
    skip_bad: bool = False,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Run ``dataset`` through ``model``, and through ``reference`` too if there is one, wherever the workers are.

    The result is the same to the bit for any workers and any number of them, as long as their processors, the
    version of ONNX Runtime and its number of threads are.

    Args:
        model: The model.
        dataset: As for :func:`evaluate`, like ``classes``, ``views``, ``batch``, ``samples`` and ``skip_bad``.
        classes: The names of the model's outputs, in order.
        reference: Another model on the same images.
        views: What the models are shown of a picture.
        batch: Images, or views of them, at a time.
        samples: Only so many images, evenly spread.
        skip_bad: Go on without images that can't be read.
        workers: Where the work runs; by default in this process, on all cores.
        progress: Told of every shard of 64 images or so.

    Raises:
        UsageError: There are neither labels nor a reference, no such views, or no such file.
        DataError: The folders do not fit the outputs, or images can't be read.
        ModelFileError: A model is no classifier, or gives scores that are not finite.
        RexportError: Workers are lost again and again.
    """
    require_something_to_measure(dataset, compares=reference is not None)
    workers = workers or choose_workers()
    compared = compared_scores(views, {model.head} if reference is None else {model.head, reference.head})
    work = _EvaluateShard(
        model=model,
        reference=reference,
        classes=tuple(classes),
        views=views,
        batch=batch,
        skip_bad=skip_bad,
        probabilities=compared == "probabilities",
        threads=workers.threads,
    )
    shards = shards_of(dataset, batch=max(1, batch // views.count), samples=samples)  # of whole batches
    total = sum(len(shard.dataset) for shard in shards)
    counts, outputs = Counts(), 0
    bad: list[BadImage] = []
    try:
        with progress("evaluating", total) as advance, closing(workers.map(work, shards)) as results:
            for index, result in results:
                counts, outputs = counts + result.counts, max(outputs, result.outputs)
                bad += result.skipped
                advance(len(shards[index].dataset))
    except UnreadableError as error:  # of one shard
        name_all_bad(dataset, samples, batch, error.bad)
    skipped = sorted(bad, key=lambda image: image.path)
    if not counts.images:
        raise UnreadableError(skipped, total)
    return Evaluation.of(
        counts,
        classes=outputs,
        labelled=dataset.labelled,
        compared=None if reference is None else compared,
        skipped=skipped,
    )
