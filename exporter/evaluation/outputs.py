"""All outputs of a file, whatever they are, against a reference's, and by a metric of the user's.

With r of the reference and y of the file, over all examples and numbers of an output:

    SQNR            10 log₁₀ (Σ r² / Σ (r − y)²), in decibels
    cosine          Σ r y / √(Σ r² · Σ y²)
    max difference  max |r − y| / max |r|

Outputs of integers, such as classes, are compared as equal or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rexport._errors import DataError, ModelFileError
from rexport._user_code import function_named
from rexport._words import first_line
from rexport.calibration.dataset import spread
from rexport.evaluation.result import finite, sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rexport.calibration import BadImage, Dataset
    from rexport.feeds import Feed

__all__ = ["Metric", "OutputComparison", "OutputTotals", "Predictions", "metric_named", "predictions"]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a metric is given of a batch.

    Attributes:
        feed: What the model took: an array, or several by the names of its inputs.
        outputs: Its outputs by name.
        labels: int64 of shape ``(N,)``, where the data set has labels.
        names: The files or places that the examples come from.
    """

    feed: Feed
    outputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    names: Sequence[str]


class Metric(Protocol):
    """A metric of the user's: ``def mean_iou(batches): for batch in batches: …; return value``; more is better."""

    def __call__(self, batches: Iterable[Predictions], /) -> float:
        """Return the metric of all batches."""
        ...


def metric_named(reference: str) -> Metric:
    """Return the function that ``module:function`` names.

    Raises:
        UsageError: There is none.
    """
    function = function_named(reference)

    def metric(batches: Iterable[Predictions], /) -> float:
        try:
            value = float(function(batches))
        except Exception as error:  # whatever a function of the user's raises
            raise DataError(f"The metric {reference} fails: {type(error).__name__}: {first_line(error)}.") from error
        if not math.isfinite(value):
            raise DataError(f"The metric {reference} gives {value}, which can't be compared.")
        return value

    return metric


def predictions(
    run: Callable[[Feed], list[np.ndarray]],
    outputs: Sequence[str],
    dataset: Dataset,
    *,
    batch: int,
    samples: int | None = None,
    skip_bad: bool = False,
    skipped: dict[BadImage, None] | None = None,
) -> Iterator[Predictions]:
    """Run the examples of a data set, and yield what ``run`` gives for each batch.

    Args:
        run: Returns all outputs.
        outputs: Their names.
        dataset: The examples.
        batch: How many at a time.
        samples: Only so many, evenly spread.
        skip_bad: Go on without examples that can't be read.
        skipped: Filled with those.

    Raises:
        DataError: Examples can't be read.
    """
    names = dataset.names()
    places = iter([names[index] for index in spread(len(names), samples)])
    for part in dataset.batches(batch, samples=samples, skip_bad=skip_bad):
        unreadable = {str(image.path) for image in part.skipped}
        if skipped is not None:
            skipped |= dict.fromkeys(part.skipped)
        read = [name for name in islice(places, len(part) + len(unreadable)) if name not in unreadable]
        if len(part):
            results = dict(zip(outputs, run(part.feed), strict=True))
            yield Predictions(feed=part.feed, outputs=results, labels=part.labels, names=read)


@dataclass(frozen=True, kw_only=True)
class OutputComparison:
    """An output against the reference's; see above. Decibels are infinite where all is equal."""

    name: str
    sqnr_db: float
    cosine: float
    max_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; numbers that are not finite are ``None``."""
        return {
            "name": self.name,
            "sqnr_db": finite(self.sqnr_db),
            "cosine": finite(self.cosine),
            "max_difference": finite(self.max_difference),
        }


@dataclass
class OutputTotals:
    """The sums of one output, over the batches so far."""

    name: str
    _signal: float = field(default=0.0, init=False)
    _power: float = field(default=0.0, init=False)
    _product: float = field(default=0.0, init=False)
    _noise: float = field(default=0.0, init=False)
    _largest: float = field(default=0.0, init=False)
    _furthest: float = field(default=0.0, init=False)

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        """Add a batch of the reference's output and the model's.

        Raises:
            ModelFileError: Their shapes differ.
        """
        if expected.shape != actual.shape:
            raise ModelFileError(
                f"The output {self.name} has the shape {actual.shape}, and the reference's {expected.shape}, so they "
                "can't be compared; evaluate with --metric alone, or a file from before what picks the results."
            )
        if not np.issubdtype(expected.dtype, np.floating):
            expected, actual = np.ones(expected.shape), (expected == actual).astype(np.float64)
        r, y = expected.astype(np.float64), actual.astype(np.float64)
        self._signal += float(np.square(r).sum())
        self._power += float(np.square(y).sum())
        self._product += float((r * y).sum())
        self._noise += float(np.square(r - y).sum())
        self._largest = max(self._largest, float(np.abs(r).max(initial=0.0)))
        self._furthest = max(self._furthest, float(np.abs(r - y).max(initial=0.0)))

    def comparison(self) -> OutputComparison:
        """Return how the outputs compare."""
        lengths = math.sqrt(self._signal * self._power)
        is_finite = math.isfinite(self._signal + self._noise)
        return OutputComparison(
            name=self.name,
            sqnr_db=sqnr_db(self._signal, self._noise) if is_finite else math.nan,
            cosine=self._product / lengths if lengths else math.nan,
            max_difference=self._furthest / (self._largest or 1.0),
        )
