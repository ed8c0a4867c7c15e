"""Top-1 and top-5 accuracy over a data set, and how closely a second model is followed.

The interval of top-1 is Wilson's at 95 % (Wilson 1927, "Probable inference"):

    (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n),    z = 1.96

SQNR, the signal-to-quantization-noise ratio of the scores y against those of the reference r, in decibels:

    10 log₁₀ (Σ r² / Σ (r − y)²)

Scores are the models' logits; or probabilities, where a model gives those, or views of a picture are averaged (see
``scores``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from rexport._errors import DataError, UsageError
from rexport._progress import Progress, silent
from rexport.calibration import CenterCrop, Views
from rexport.evaluation.scores import Classifier, Prepare
from rexport.model_file import Head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport.calibration import BadImage, Batch, Dataset, ViewBatch
    from rexport.runtimes import Runtime

__all__ = ["Comparison", "Evaluation", "class_indices", "evaluate"]

_Z = 1.959964  # of the normal distribution, for 95 %
_MIDDLE = CenterCrop()
_Scores: TypeAlias = Literal["logits", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How closely a model follows a reference: the share of images with the same top-1, and the scores' SQNR.

    ``sqnr_db`` is infinite where the scores are equal to the last bit; ``scores`` says which they are, ``logits`` or
    ``probabilities``. ``reference_top1`` is the reference's own accuracy, ``None`` without labels.
    """

    agreement: float
    sqnr_db: float
    scores: _Scores
    reference_top1: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result.

    Attributes:
        images: How many there were.
        top1: The fraction that is right; ``None`` where there are no labels.
        top5: Likewise; ``None`` too where there are no more than five classes.
        top1_interval: Of top-1, at 95 %.
        comparison: With the reference, if there is one.
        skipped: The images that could not be used.
    """

    images: int
    top1: float | None
    top5: float | None
    top1_interval: tuple[float, float] | None
    comparison: Comparison | None
    skipped: tuple[BadImage, ...]


@dataclass
class _Counts:
    images: int = 0
    top1: int = 0
    top5: int = 0
    classes: int = 0
    reference_top1: int = 0
    agreeing: int = 0
    signal: float = 0.0
    noise: float = 0.0


def evaluate(
    runtime: Runtime,
    dataset: Dataset,
    *,
    classes: Sequence[str] = (),
    reference: Runtime | None = None,
    views: Views = _MIDDLE,
    head: Head = Head.LOGITS,
    reference_head: Head = Head.LOGITS,
    prepare: Prepare | None = None,
    reference_prepare: Prepare | None = None,
    batch: int = 32,
    samples: int | None = None,
    skip_bad: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Run ``dataset`` through ``runtime``, and through ``reference`` too if there is one.

    Args:
        runtime: The model.
        dataset: Its images; without labels only a comparison with ``reference`` is possible.
        classes: The names of the model's outputs, in order, by which class folders are matched to them. Without
            names, the sorted folders are the outputs, and there must be as many of both.
        reference: Another model on the same images.
        views: What the models are shown of a picture; the scores of several views are averaged.
        head: What ``runtime`` gives; probabilities are averaged as they are, of logits it is the softmax.
        reference_head: What ``reference`` gives. If one gives probabilities, they are what is compared.
        prepare: What makes the images of ``dataset`` the input of ``runtime``, such as
            :meth:`Preprocessing.to_input <rexport.Preprocessing.to_input>` of pixels; by default they are it.
        reference_prepare: Likewise for ``reference``.
        batch: Images, or views of them, at a time.
        samples: Only so many images, evenly spread.
        skip_bad: Go on without images that can't be read.
        progress: Told of every batch.

    Raises:
        UsageError: There are neither labels nor a reference, or no such views.
        DataError: The folders do not fit the outputs, or images can't be read.
        ModelFileError: A model is no classifier, or gives scores that are not finite.
    """
    if not dataset.labelled and reference is None:
        raise UsageError(
            "The images have no labels (they are not in class folders), so there is no accuracy to measure; pass "
            "--reference MODEL to compare two models on them."
        )
    heads = {head} if reference is None else {head, reference_head}
    probabilities = not isinstance(views, CenterCrop) or Head.SOFTMAX in heads
    model = Classifier(runtime=runtime, head=head, probabilities=probabilities, prepare=prepare)
    other = None
    if reference is not None:
        other = Classifier(
            runtime=reference,
            head=reference_head,
            probabilities=probabilities,
            prepare=reference_prepare,
        )
    counts = _Counts()
    skipped: list[BadImage] = []
    outputs: np.ndarray | None = None
    total = len(dataset) if samples is None else min(samples, len(dataset))
    with progress("evaluating", total) as advance:
        for images in _batches(dataset, views, batch, samples=samples, skip_bad=skip_bad):
            skipped += images.skipped
            advance(len(images) + len(images.skipped))
            if not len(images):
                continue
            scores = model.scores(images, batch=batch)
            counts.images += len(images)
            counts.classes = scores.shape[1]
            labels = None
            if images.labels is not None:
                if outputs is None:
                    outputs = class_indices(dataset.classes, classes, scores.shape[1])
                labels = images.labels if outputs.size == 0 else outputs[images.labels]
                _require_in_range(labels, scores.shape[1])
                counts.top1 += int((scores.argmax(axis=1) == labels).sum())
                best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
                counts.top5 += int((best == labels[:, None]).any(axis=1).sum())
            if other is not None:
                _compare(counts, scores, other.scores(images, batch=batch), labels)
    return _evaluation(
        counts,
        labelled=dataset.labelled,
        compared=None if other is None else "probabilities" if probabilities else "logits",
        skipped=skipped,
    )


def _batches(
    dataset: Dataset, views: Views, batch: int, *, samples: int | None, skip_bad: bool
) -> Iterator[Batch] | Iterator[ViewBatch]:
    if isinstance(views, CenterCrop):
        return dataset.batches(batch, samples=samples, skip_bad=skip_bad)
    return dataset.view_batches(views, batch, samples=samples, skip_bad=skip_bad)


def class_indices(folders: Sequence[str] | None, classes: Sequence[str], outputs: int) -> np.ndarray:
    """Return the model's output for each class folder, int64; empty if labels are outputs already.

    Raises:
        DataError: Only some of the folders are among the ``classes``, or none is and the numbers differ.
    """
    if folders is None:
        return np.array([], np.int64)
    unknown = [folder for folder in folders if folder not in classes]
    if not unknown:
        return np.array([list(classes).index(folder) for folder in folders], np.int64)
    if len(folders) == outputs and len(unknown) == len(folders):
        return np.arange(outputs)
    raise DataError(
        f"There are {len(folders)} class folders and the model has {outputs} outputs, so which is which is not clear: "
        + (f"the model knows no class {unknown[0]!r}." if classes else "the model does not name its classes.")
    )


def _require_in_range(labels: np.ndarray, outputs: int) -> None:
    if labels.min() < 0 or labels.max() >= outputs:
        raise DataError(f"There are labels from {labels.min()} to {labels.max()}, and the model has {outputs} outputs.")


def _compare(counts: _Counts, scores: np.ndarray, expected: np.ndarray, labels: np.ndarray | None) -> None:
    if expected.shape != scores.shape:
        raise UsageError(f"The model has {scores.shape[1]} outputs and the reference {expected.shape[1]}.")
    counts.agreeing += int((scores.argmax(axis=1) == expected.argmax(axis=1)).sum())
    counts.signal += float(np.square(expected, dtype=np.float64).sum())
    counts.noise += float(np.square(expected.astype(np.float64) - scores).sum())
    if labels is not None:
        counts.reference_top1 += int((expected.argmax(axis=1) == labels).sum())


def _evaluation(
    counts: _Counts, *, labelled: bool, compared: _Scores | None, skipped: Sequence[BadImage]
) -> Evaluation:
    n = counts.images
    comparison = None
    if compared is not None:
        sqnr = math.inf if counts.noise == 0 else 10 * math.log10(max(counts.signal, 1e-300) / counts.noise)
        comparison = Comparison(
            agreement=counts.agreeing / n,
            sqnr_db=sqnr,
            scores=compared,
            reference_top1=counts.reference_top1 / n if labelled else None,
        )
    return Evaluation(
        images=n,
        top1=counts.top1 / n if labelled else None,
        top5=counts.top5 / n if labelled and counts.classes > 5 else None,
        top1_interval=_wilson(counts.top1, n) if labelled else None,
        comparison=comparison,
        skipped=tuple(skipped),
    )


def _wilson(successes: int, n: int) -> tuple[float, float]:
    p, z2 = successes / n, _Z * _Z
    middle = p + z2 / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # the ends are 0 and 1 where none or all succeed, but for rounding
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))
