"""Judging a model's scores: by the labels of images, and by the scores of another model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError, UsageError
from rexport.calibration import CenterCrop, Views
from rexport.evaluation.result import Counts
from rexport.model_file import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rexport.calibration import BadImage, Batch, Dataset, ViewBatch
    from rexport.evaluation.result import Scores
    from rexport.evaluation.scores import Classifier

__all__ = ["Judge", "Verdict", "class_indices", "compared_scores", "require_something_to_measure"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of some images: their ``counts``, how many ``outputs`` the model has, and which were ``skipped``."""

    counts: Counts
    outputs: int
    skipped: tuple[BadImage, ...]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A model, and what it is judged by.

    Attributes:
        model: The model.
        reference: The other one, if there is one.
        classes: The names of the model's outputs, in order.
        views: What the models are shown of a picture.
        batch: Images, or views of them, at a time.
    """

    model: Classifier
    reference: Classifier | None
    classes: Sequence[str]
    views: Views
    batch: int

    def judge(
        self,
        dataset: Dataset,
        *,
        samples: int | None = None,
        skip_bad: bool = False,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Verdict:
        """Run a data set through the models; ``advance`` is told how many images are done.

        Raises:
            DataError: The folders do not fit the outputs, or images can't be read.
            ModelFileError: A model is no classifier, or gives scores that are not finite.
        """
        counts, outputs = Counts(), 0
        skipped: list[BadImage] = []
        for images in self._batches(dataset, samples=samples, skip_bad=skip_bad):
            skipped += images.skipped
            if len(images):
                more, outputs = self._count(images, dataset.classes)
                counts += more
            advance(len(images) + len(images.skipped))
        return Verdict(counts=counts, outputs=outputs, skipped=tuple(skipped))

    def _batches(self, dataset: Dataset, *, samples: int | None, skip_bad: bool) -> Iterator[Batch | ViewBatch]:
        """Yield the images of a data set as the models are shown them (see :meth:`Dataset.batches`)."""
        if isinstance(self.views, CenterCrop):
            yield from dataset.batches(self.batch, samples=samples, skip_bad=skip_bad)
        else:
            yield from dataset.view_batches(self.views, self.batch, samples=samples, skip_bad=skip_bad)

    def _count(self, images: Batch | ViewBatch, folders: Sequence[str] | None) -> tuple[Counts, int]:
        """Return what a batch, not an empty one, counts, and how many classes the model knows.

        Args:
            images: The batch.
            folders: The class folders that its labels are indices of; ``None`` if labels are outputs already.

        Raises:
            DataError: The folders do not fit the outputs.
            ModelFileError: A model is no classifier, or gives scores that are not finite.
        """
        scores = self.model.scores(images, batch=self.batch)
        top1 = top5 = reference_top1 = agreeing = 0
        signal = noise = Fraction(0)
        labels = None if images.labels is None else self._outputs(images.labels, folders, scores.shape[1])
        if labels is not None:
            top1 = _right(scores, labels)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
            top5 = int((best == labels[:, None]).any(axis=1).sum())
        if self.reference is not None:
            expected = self.reference.scores(images, batch=self.batch)
            if expected.shape != scores.shape:
                raise UsageError(f"The model has {scores.shape[1]} outputs and the reference {expected.shape[1]}.")
            agreeing = _right(scores, expected.argmax(axis=1))
            signal = Fraction(float(np.square(expected, dtype=np.float64).sum()))
            noise = Fraction(float(np.square(expected.astype(np.float64) - scores).sum()))
            reference_top1 = 0 if labels is None else _right(expected, labels)
        counts = Counts(
            images=len(images),
            top1=top1,
            top5=top5,
            reference_top1=reference_top1,
            agreeing=agreeing,
            signal=signal,
            noise=noise,
        )
        return counts, scores.shape[1]

    def _outputs(self, labels: np.ndarray, folders: Sequence[str] | None, outputs: int) -> np.ndarray:
        indices = class_indices(folders, self.classes, outputs)
        labels = labels if indices.size == 0 else indices[labels]
        if labels.min() < 0 or labels.max() >= outputs:
            raise DataError(
                f"There are labels from {labels.min()} to {labels.max()}, and the model has {outputs} outputs."
            )
        return labels


def compared_scores(views: Views, heads: set[Head]) -> Scores:
    """Return which scores of models with these heads can be compared and averaged over views."""
    return "logits" if isinstance(views, CenterCrop) and heads == {Head.LOGITS} else "probabilities"


def require_something_to_measure(dataset: Dataset, *, compares: bool) -> None:
    """Raise :class:`UsageError` where there are neither labels nor a reference to compare with."""
    if not dataset.labelled and not compares:
        raise UsageError(
            "The images have no labels (they are not in class folders), so there is no accuracy to measure; pass "
            "--reference MODEL to compare two models on them."
        )


def class_indices(folders: Sequence[str] | None, classes: Sequence[str], outputs: int) -> np.ndarray:
    """Return the model's output for each class folder, int64; empty if labels are outputs already.

    Raises:
        DataError: Only some of the folders are among the ``classes``, or none is and the numbers differ.
    """
    if folders is None:
        return np.array([], np.int64)
    places = {name: index for index, name in reversed(list(enumerate(classes)))}
    unknown = [folder for folder in folders if folder not in places]
    if not unknown:
        return np.array([places[folder] for folder in folders], np.int64)
    if len(folders) == outputs and len(unknown) == len(folders):
        return np.arange(outputs)
    raise DataError(
        f"There are {len(folders)} class folders and the model has {outputs} outputs, so which is which is not clear: "
        + (f"the model knows no class {unknown[0]!r}." if classes else "the model does not name its classes.")
    )


def _right(scores: np.ndarray, labels: np.ndarray) -> int:
    return int((scores.argmax(axis=1) == labels).sum())
