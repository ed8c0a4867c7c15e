"""The scores that a classifier gives to pictures, and their average over several views of each.

The average is of probabilities, over the V views of a picture with the logits z⁽¹⁾ … z⁽ⱽ⁾:

    p_c = 1/V · Σ_v softmax(z⁽ᵛ⁾)_c,        softmax(z)_c = exp z_c / Σ_k exp z_k

as Krizhevsky et al. 2012 (section 4.1) average ten crops and He et al. 2015 (arXiv:1512.03385, section 3.4) scales. On
a whole picture the network is fully convolutional: averaging its last map and then applying the linear head is the
average of that head at every place of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rexport._errors import ModelFileError
from rexport._words import counted
from rexport.calibration import Batch
from rexport.model_file import Head
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rexport.calibration import ViewBatch
    from rexport.runtimes import Runtime

__all__ = ["Classifier", "ClassifierFile", "Prepare", "softmax"]

Prepare: TypeAlias = "Callable[[np.ndarray], np.ndarray]"


@dataclass(frozen=True, kw_only=True)
class ClassifierFile:
    """A model file with the form of its input and output.

    Attributes:
        path: The file.
        head: The kind of its output; probabilities are averaged as they are, logits after a softmax.
        prepare: Turns the images of a data set into its input, if they are not, such as
            :meth:`Preprocessing.to_input <rexport.Preprocessing.to_input>`; it can be pickled.
        runtime: The name of its runtime (see :data:`rexport.runtimes.RUNTIMES`).
    """

    path: Path
    head: Head = Head.LOGITS
    prepare: Prepare | None = None
    runtime: str = "cpu"

    def open(self, threads: int) -> Classifier:
        """Load it."""
        # parsed anew: a worker may be on a machine that has no such file
        runtime = open_runtime(self.runtime, Source.parse(str(self.path)), threads=threads)
        return Classifier(runtime=runtime, head=self.head, prepare=self.prepare)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A loaded model; ``head`` and ``prepare`` are as in :class:`ClassifierFile`."""

    runtime: Runtime
    head: Head = Head.LOGITS
    prepare: Prepare | None = None

    def open(self, threads: int) -> Classifier:  # noqa: ARG002  # those that it was loaded with
        """Return itself."""
        return self

    def scores(self, images: Batch | ViewBatch, *, batch: int, probabilities: bool) -> np.ndarray:
        """Return the scores of images, or the average over the views of pictures, of shape ``(N, classes)``.

        Views of one size run together, as many as have no more pixels than ``batch`` of the smallest: memory does not
        grow with the number of pictures. With ``probabilities``, logits become probabilities; without, scores are the
        model's own output.

        Raises:
            ModelFileError: The model is no classifier, or its scores are not finite.
        """
        if isinstance(images, Batch):
            return self._of(images.images, probabilities)
        return self._average(images.pictures, batch, probabilities)

    def _average(self, pictures: Sequence[Sequence[np.ndarray]], batch: int, probabilities: bool) -> np.ndarray:
        by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for index, views in enumerate(pictures):
            for view in views:
                by_size.setdefault(view.shape, []).append((index, view))
        numbers = batch * min(map(math.prod, by_size))
        sums: np.ndarray | None = None
        for shape, indexed_views in by_size.items():
            at_once = max(1, numbers // math.prod(shape))
            for start in range(0, len(indexed_views), at_once):
                part = indexed_views[start : start + at_once]
                scores = self._of(np.stack([view for _, view in part]), probabilities)
                if sums is None:
                    sums = np.zeros((len(pictures), scores.shape[1]))
                np.add.at(sums, [index for index, _ in part], scores)
        assert sums is not None
        averages: np.ndarray = sums / np.array([len(views) for views in pictures])[:, None]
        return averages

    def _of(self, images: np.ndarray, probabilities: bool) -> np.ndarray:
        if self.prepare is not None:
            images = self.prepare(images)
        scores = _require_scores(self.runtime.run(images), len(images), self.head)
        return softmax(scores) if probabilities and self.head is not Head.SOFTMAX else scores


def _require_scores(scores: np.ndarray, images: int, head: Head) -> np.ndarray:
    if scores.ndim != 2 or len(scores) != images:
        raise ModelFileError(
            f"The model is no classifier: its output for {counted(images, 'image')} has shape {scores.shape}. `rexport "
            "eval --reference FILE` compares outputs of any shape."
        )
    broken = int((~np.isfinite(scores).all(axis=1)).sum())
    if broken:  # the largest of them would mean nothing, and might even be right
        kind = "probabilities" if head is Head.SOFTMAX else "logits"
        raise ModelFileError(
            f"The model's {kind} for {broken} of {images} images are not finite (NaN or infinite): look for such "
            "values in its weights, and in the images if they come from an array."
        )
    return scores


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, float64 of the same shape ``(N, classes)``."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
