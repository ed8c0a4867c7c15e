"""Top-1 and top-5 accuracy of a model over a data set, and how closely it follows a second one."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport._progress import Progress, silent
from rexport.calibration import CenterCrop, Views
from rexport.calibration.decoding import UnreadableError
from rexport.calibration.sharding import name_all_bad, shards_of
from rexport.calibration.workers import choose_workers
from rexport.evaluation.judge import Judge, Verdict, worst_of
from rexport.evaluation.result import Counts, Evaluation
from rexport.evaluation.scores import Classifier, ClassifierFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.calibration import Dataset
    from rexport.calibration.workers import Workers
    from rexport.runtimes import Runtime

__all__ = ["evaluate"]

_MIDDLE = CenterCrop()


def evaluate(
    model: Runtime | Classifier | ClassifierFile,
    dataset: Dataset,
    *,
    classes: Sequence[str] = (),
    reference: Runtime | Classifier | ClassifierFile | None = None,
    views: Views = _MIDDLE,
    batch: int = 32,
    samples: int | None = None,
    skip_bad: bool = False,
    worst: int = 0,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Run ``dataset`` through ``model``, and through ``reference`` too if there is one.

    The result is the same to the bit for any workers, as long as their processors, the version of ONNX Runtime and its
    number of threads are the same.

    Args:
        model: A file, or a model that is loaded; a runtime alone gives logits of the images as they are.
        dataset: Its images; without labels only a comparison with ``reference`` is possible.
        classes: The names of the model's outputs, in order, by which class folders are matched to them. Without
            names, the sorted folders are the outputs, and there must be as many of both.
        reference: Another model on the same images. If one of the two gives probabilities, they are compared.
        views: The views of a picture; the scores of several are averaged.
        batch: Images, or views of them, at a time.
        samples: Only so many images, evenly spread.
        skip_bad: Go on without images that can't be read.
        worst: The number of mistakes to list, those of the highest probability first.
        workers: The workers that run the images; by default this process, on all cores. Loaded models need this one.
        progress: Reports every shard of about 64 images.

    Raises:
        UsageError: There are neither labels nor a reference, no such views, or no such file.
        DataError: The folders do not fit the outputs, or images can't be read.
        ModelFileError: A model is no classifier, or gives scores that are not finite.
        RexportError: Workers are lost again and again.
    """
    if not dataset.labelled and reference is None:
        raise UsageError(
            "The images have no labels (they are not in class folders, and there is no image_labels.csv beside "
            "them), so there is no accuracy to measure; pass --reference MODEL to compare two models on them."
        )
    workers = workers or choose_workers()
    judge = Judge(
        model=_classifier(model),
        reference=_classifier(reference) if reference else None,
        classes=tuple(classes),
        views=views,
        batch=batch,
        threads=workers.threads,
        worst=worst,
    )
    shards = shards_of(dataset, batch=max(1, batch // views.count), samples=samples)  # of whole batches
    total = sum(len(shard.dataset) for shard in shards)
    verdicts: list[Verdict] = []
    with progress("evaluating", total) as advance, closing(workers.map(judge, shards)) as results:
        for index, verdict in results:
            if verdict.skipped and not skip_bad:
                name_all_bad(judge.batches(dataset, samples=samples, skip_bad=False), verdict.skipped, total)
            verdicts.append(verdict)
            advance(len(shards[index].dataset))
    counts = sum((verdict.counts for verdict in verdicts), Counts())
    skipped = sorted((bad for verdict in verdicts for bad in verdict.skipped), key=lambda bad: bad.path)
    if not counts.images:
        raise UnreadableError(skipped, total)
    return Evaluation.of(
        counts,
        classes=max(verdict.outputs for verdict in verdicts),
        labelled=dataset.labelled,
        compared=judge.compared if judge.reference else None,
        skipped=skipped,
        worst=worst_of(chain.from_iterable(verdict.worst for verdict in verdicts), worst),
    )


def _classifier(model: Runtime | Classifier | ClassifierFile) -> Classifier | ClassifierFile:
    return model if isinstance(model, Classifier | ClassifierFile) else Classifier(runtime=model)
