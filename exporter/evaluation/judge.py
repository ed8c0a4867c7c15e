"""Judging a model's scores: by the labels of images, and by the scores of another model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError, UsageError
from rexport.calibration import CenterCrop, Views
from rexport.calibration.decoding import UnreadableError
from rexport.evaluation.result import Counts, Mistake
from rexport.evaluation.scores import softmax
from rexport.imagenet import imagenet_classes, imagenet_outputs
from rexport.model_file import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rexport.calibration import BadImage, Batch, Dataset, ViewBatch
    from rexport.calibration.sharding import Shard
    from rexport.evaluation.result import Scores
    from rexport.evaluation.scores import Classifier, ClassifierFile

__all__ = ["Judge", "Verdict", "class_indices", "worst_of"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The ``counts`` of some images, the number of the model's ``outputs``, ``skipped`` images, ``worst`` mistakes."""

    counts: Counts
    outputs: int
    skipped: tuple[BadImage, ...]
    worst: tuple[Mistake, ...]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A model and the settings to judge it with: the work for every shard of a data set.

    Attributes:
        model: The model.
        reference: The model to compare with, if any.
        classes: The names of the model's outputs, in order.
        views: The views of a picture that the models get.
        batch: Images, or views of them, at a time.
        threads: The threads of each runtime.
        worst: The number of mistakes to list.
    """

    model: Classifier | ClassifierFile
    reference: Classifier | ClassifierFile | None
    classes: tuple[str, ...]
    views: Views
    batch: int
    threads: int
    worst: int = 0

    @property
    def compared(self) -> Scores:
        """The scores of the models that can be compared, and averaged over views."""
        heads = {model.head for model in (self.model, self.reference) if model is not None}
        return "logits" if isinstance(self.views, CenterCrop) and heads == {Head.LOGITS} else "probabilities"

    def open(self) -> Callable[[Shard], Verdict]:
        """Load the models, and return the function that judges a shard.

        It raises :class:`DataError` where the folders do not fit the outputs, and :class:`ModelFileError` for a model
        that is no classifier, or gives scores that are not finite. Images that can't be read are left out.
        """
        model = self.model.open(self.threads)
        reference = self.reference.open(self.threads) if self.reference else None
        return lambda shard: self._judge(shard.dataset, model, reference)

    def batches(self, dataset: Dataset, *, samples: int | None, skip_bad: bool) -> Iterator[Batch | ViewBatch]:
        """Yield the images of a data set as the models are shown them (see :meth:`Dataset.batches`)."""
        if isinstance(self.views, CenterCrop):
            yield from dataset.batches(self.batch, samples=samples, skip_bad=skip_bad)
        else:
            yield from dataset.view_batches(self.views, self.batch, samples=samples, skip_bad=skip_bad)

    def _judge(self, dataset: Dataset, model: Classifier, reference: Classifier | None) -> Verdict:
        counts, outputs = Counts(), 0
        skipped: list[BadImage] = []
        mistakes: list[tuple[int, Mistake]] = []  # with the number of readable images before
        try:
            for images in self.batches(dataset, samples=None, skip_bad=True):
                skipped += images.skipped
                if not len(images):
                    continue
                scores, expected, labels = self._scores(model, images), None, images.labels
                outputs = scores.shape[1]
                if reference is not None:
                    expected = self._scores(reference, images)
                if labels is not None:
                    labels = self._outputs(labels, dataset.classes, outputs)
                    if self.worst:
                        mistakes += self._mistakes(scores, labels, before=counts.images)
                counts += _count(scores, expected, labels)
        except UnreadableError as error:  # not one image of the shard can be read
            skipped = [*error.bad]
        unreadable = {str(image.path) for image in skipped}
        readable = [name for name in dataset.names() if name not in unreadable]
        worst = worst_of((replace(mistake, image=readable[position]) for position, mistake in mistakes), self.worst)
        return Verdict(counts=counts, outputs=outputs, skipped=tuple(skipped), worst=worst)

    def _mistakes(self, scores: np.ndarray, labels: np.ndarray, *, before: int) -> Iterator[tuple[int, Mistake]]:
        """Yield the wrong predictions, each with the number of readable images before; without names of images."""
        probabilities = softmax(scores) if self.compared == "logits" else scores
        predictions = scores.argmax(axis=1)
        for row in np.flatnonzero(predictions != labels):
            label, prediction = int(labels[row]), int(predictions[row])
            probability = float(probabilities[row, prediction])
            yield before + int(row), Mistake(image="", label=label, prediction=prediction, probability=probability)

    def _scores(self, model: Classifier, images: Batch | ViewBatch) -> np.ndarray:
        return model.scores(images, batch=self.batch, probabilities=self.compared == "probabilities")

    def _outputs(self, labels: np.ndarray, folders: Sequence[str] | None, outputs: int) -> np.ndarray:
        """Return the model's outputs for labels: indices of ``folders``, or outputs already without those."""
        indices = class_indices(folders, self.classes, outputs)
        if indices.size:
            labels = indices[labels]
        if labels.min() < 0 or labels.max() >= outputs:
            raise DataError(
                f"The labels go from {labels.min()} to {labels.max()}, and the model has {outputs} outputs."
            )
        return labels


def _count(scores: np.ndarray, expected: np.ndarray | None, labels: np.ndarray | None) -> Counts:
    """Return the counts of a batch: its scores and the reference's, ``(N, classes)``, and the right outputs."""
    top1 = top5 = reference_top1 = agreeing = 0
    signal = noise = Fraction(0)
    confusion: Counter[tuple[int, int]] = Counter()
    if labels is not None:
        top1 = _right(scores, labels)
        confusion.update(zip(labels.tolist(), scores.argmax(axis=1).tolist(), strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        top5 = int((best == labels[:, None]).any(axis=1).sum())
    if expected is not None:
        if expected.shape != scores.shape:
            raise UsageError(f"The model has {scores.shape[1]} outputs and the reference {expected.shape[1]}.")
        agreeing = _right(scores, expected.argmax(axis=1))
        signal = Fraction(float(np.square(expected, dtype=np.float64).sum()))
        noise = Fraction(float(np.square(expected.astype(np.float64) - scores).sum()))
        if labels is not None:
            reference_top1 = _right(expected, labels)
    return Counts(
        images=len(scores),
        top1=top1,
        top5=top5,
        reference_top1=reference_top1,
        agreeing=agreeing,
        signal=signal,
        noise=noise,
        confusion=confusion,
    )


def worst_of(mistakes: Iterable[Mistake], count: int) -> tuple[Mistake, ...]:
    """Return the ``count`` mistakes of the highest probability, in an order that depends on nothing else."""
    return tuple(sorted(mistakes, key=lambda mistake: (-mistake.probability, mistake.image))[:count])


def class_indices(folders: Sequence[str] | None, classes: Sequence[str], outputs: int) -> np.ndarray:
    """Return the model's output for each class folder, int64; empty if labels are outputs already.

    Folders are named as the ``classes``, by WordNet ids of ImageNet's 1,000 classes, or are as many as the outputs.

    Raises:
        DataError: Only some of the folders are among the ``classes``, or none is and the numbers differ.
    """
    if folders is None:
        return np.array([], np.int64)
    places = {name: index for index, name in reversed(list(enumerate(classes)))}
    unknown = [folder for folder in folders if folder not in places]
    if not unknown:
        return np.array([places[folder] for folder in folders], np.int64)
    imagenet = imagenet_outputs(folders, classes)
    if imagenet is not None and outputs == len(imagenet_classes()):
        return np.array(imagenet, np.int64)
    if len(folders) == outputs and len(unknown) == len(folders):
        return np.arange(outputs)
    reason = f"the model knows no class {unknown[0]!r}" if classes else "the model does not name its classes"
    raise DataError(
        f"There are {len(folders)} class folders and the model has {outputs} outputs, so they can't be "
        f"matched: {reason}."
    )


def _right(scores: np.ndarray, labels: np.ndarray) -> int:
    return int((scores.argmax(axis=1) == labels).sum())
