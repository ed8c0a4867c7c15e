"""Accuracy and agreement, from counts.

The interval of top-1 is Wilson's at 95 % (Wilson 1927, "Probable inference"):

    (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n),    z = 1.96

SQNR, the signal-to-quantization-noise ratio of the scores y against those of the reference r, in decibels:

    10 log₁₀ (Σ r² / Σ (r − y)²)

Scores are the models' logits; or probabilities, where a model gives those, or views of a picture are averaged (see
``scores``).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.calibration import BadImage

__all__ = [
    "ClassCounts",
    "Comparison",
    "ConfusedPair",
    "Counts",
    "Evaluation",
    "Mistake",
    "Scores",
    "db_in_words",
    "finite",
    "sqnr_db",
    "wilson_interval",
]

_Z = 1.959964  # of the normal distribution, for 95 %
_FEW_CLASSES = 5
Scores: TypeAlias = Literal["logits", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of images and of right answers; they add up exactly, in any order.

    For the sums in SQNR each batch has a float64, and their sum is a fraction, without rounding.

    Attributes:
        images: The number of images.
        top1: How many of them have the right class as the best.
        top5: How many among the best five.
        reference_top1: How many have the right class as the reference's best.
        agreeing: How many have the same best class in both.
        signal: Σ r² over the scores r of the reference.
        noise: Σ (r − y)² over those and the scores y of the model.
        confusion: The number of images by label and prediction, both indices of outputs.
    """

    images: int = 0
    top1: int = 0
    top5: int = 0
    reference_top1: int = 0
    agreeing: int = 0
    signal: Fraction = Fraction(0)
    noise: Fraction = Fraction(0)
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __add__(self, addend: Counts) -> Counts:
        """Return the counts of the images of both."""
        return Counts(
            **{field.name: getattr(self, field.name) + getattr(addend, field.name) for field in fields(Counts)}
        )


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """How many ``images`` have the class of this ``index``, and how many of them the model gets ``right``."""

    index: int
    images: int
    right: int

    @property
    def accuracy(self) -> float | None:
        """The fraction that is right; ``None`` without images."""
        return self.right / self.images if self.images else None


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """How many ``images`` of class ``label`` are predicted as another, ``prediction``."""

    images: int
    label: int
    prediction: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong ``prediction``, with the ``probability`` that the model gives it, for an ``image`` of class ``label``."""

    image: str
    label: int
    prediction: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How closely a model follows a reference: the share of images with the same top-1, and the scores' SQNR.

    ``sqnr_db`` is infinite where the scores are equal to the last bit; ``scores`` says which they are, ``logits`` or
    ``probabilities``. ``reference_top1`` is the reference's own accuracy, ``None`` without labels.
    """

    agreement: float
    sqnr_db: float
    scores: Scores
    reference_top1: float | None

    @classmethod
    def of(cls, counts: Counts, scores: Scores, *, labelled: bool) -> Comparison:
        """Return the comparison of ``counts``, of one image or more."""
        return cls(
            agreement=counts.agreeing / counts.images,
            sqnr_db=sqnr_db(float(counts.signal), float(counts.noise)),
            scores=scores,
            reference_top1=counts.reference_top1 / counts.images if labelled else None,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result.

    Attributes:
        images: The number of images.
        top1: The fraction that is right; ``None`` without labels.
        top5: The fraction with the right class among the best five; ``None`` without labels or with five classes or
            fewer.
        top1_interval: The 95 % interval of top-1.
        comparison: The comparison with the reference, if there is one.
        skipped: The unusable images.
        outputs: The number of the model's outputs.
        confusion: The number of images by label and prediction, both indices of outputs; empty without labels.
        worst: The mistakes of the highest probability, if they were asked for.
    """

    images: int
    top1: float | None
    top5: float | None
    top1_interval: tuple[float, float] | None
    comparison: Comparison | None
    skipped: tuple[BadImage, ...]
    outputs: int = 0
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)
    worst: tuple[Mistake, ...] = ()

    @property
    def classes(self) -> tuple[ClassCounts, ...]:
        """The counts of each class, in the order of the outputs; empty without labels."""
        if self.top1 is None:
            return ()
        images: Counter[int] = Counter()
        for (label, _), count in self.confusion.items():
            images[label] += count
        return tuple(
            ClassCounts(index=index, images=images[index], right=self.confusion[index, index])
            for index in range(self.outputs)
        )

    @property
    def worst_classes(self) -> tuple[ClassCounts, ...]:
        """The counts of each class that has images, the least accurate first."""
        present = (counts for counts in self.classes if counts.images)
        return tuple(sorted(present, key=lambda counts: (counts.accuracy, counts.index)))

    @property
    def confused_pairs(self) -> tuple[ConfusedPair, ...]:
        """The pairs of a class and a wrong prediction, the most frequent first."""
        pairs = (
            ConfusedPair(images=count, label=label, prediction=prediction)
            for (label, prediction), count in self.confusion.items()
            if label != prediction
        )
        return tuple(sorted(pairs, key=lambda pair: (-pair.images, pair.label, pair.prediction)))

    @classmethod
    def of(
        cls,
        counts: Counts,
        *,
        classes: int,
        labelled: bool,
        compared: Scores | None,
        skipped: Sequence[BadImage],
        worst: Sequence[Mistake] = (),
    ) -> Evaluation:
        """Return the evaluation of ``counts``.

        Args:
            counts: The counts of one image or more.
            classes: The number of the model's classes.
            labelled: Whether the images have labels.
            compared: The scores that were compared with a reference's; ``None`` without one.
            skipped: The unusable images.
            worst: The mistakes to list.
        """
        n = counts.images
        return cls(
            images=n,
            top1=counts.top1 / n if labelled else None,
            top5=counts.top5 / n if labelled and classes > _FEW_CLASSES else None,
            top1_interval=wilson_interval(counts.top1, n) if labelled else None,
            comparison=None if compared is None else Comparison.of(counts, compared, labelled=labelled),
            skipped=tuple(skipped),
            outputs=classes,
            confusion=counts.confusion,
            worst=tuple(worst),
        )


def sqnr_db(signal: float, noise: float) -> float:
    """Return the ratio of Σ r² to Σ (r − y)² in decibels; infinite without noise."""
    return 10 * math.log10(max(signal, 1e-300) / noise) if noise else math.inf


def db_in_words(decibels: float) -> str:
    """Return ``42.0 dB``, or what else a ratio is."""
    if math.isnan(decibels):
        return "no finite numbers"
    return "equal" if math.isinf(decibels) else f"{decibels:.1f} dB"


def finite(number: float | None) -> float | None:
    """Return a number for JSON: ``None`` for infinity and NaN."""
    return number if number is not None and math.isfinite(number) else None


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the interval of a share at 95 %, of ``successes`` among ``n``, at least one."""
    p, z2 = successes / n, _Z * _Z
    middle = p + z2 / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # the ends are 0 and 1 where none or all succeed, but for rounding
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))
