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
from rexport.calibration import Batch
from rexport.model_file import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rexport.calibration import ViewBatch
    from rexport.runtimes import Runtime

__all__ = ["Classifier", "Prepare"]

Prepare: TypeAlias = "Callable[[np.ndarray], np.ndarray]"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that is loaded, and what it takes and gives.

    Attributes:
        runtime: The model.
        head: What its output is.
        probabilities: Whether scores are to be probabilities in any case, or as the model gives them.
        prepare: What makes images its input, if they are not.
    """

    runtime: Runtime
    head: Head
    probabilities: bool
    prepare: Prepare | None = None

    def scores(self, images: Batch | ViewBatch, *, batch: int) -> np.ndarray:
        """Return the scores of images, or the average over the views of pictures, of shape ``(N, classes)``.

        Views of one size run together, as many as have no more pixels than ``batch`` of the smallest: memory does not
        grow with the number of pictures.

        Raises:
            ModelFileError: The model is no classifier, or its scores are not finite.
        """
        return self._of(images.images) if isinstance(images, Batch) else self._average(images.pictures, batch=batch)

    def _average(self, pictures: Sequence[Sequence[np.ndarray]], *, batch: int) -> np.ndarray:
        by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for index, views in enumerate(pictures):
            for view in views:
                by_size.setdefault(view.shape, []).append((index, view))
        numbers = batch * min(map(math.prod, by_size))
        sums: np.ndarray | None = None
        for shape, found in by_size.items():
            at_once = max(1, numbers // math.prod(shape))
            for start in range(0, len(found), at_once):
                part = found[start : start + at_once]
                scores = self._of(np.stack([view for _, view in part]))
                if sums is None:
                    sums = np.zeros((len(pictures), scores.shape[1]))
                np.add.at(sums, [index for index, _ in part], scores)
        assert sums is not None
        averages: np.ndarray = sums / np.array([len(views) for views in pictures])[:, None]
        return averages

    def _of(self, images: np.ndarray) -> np.ndarray:
        inputs = images if self.prepare is None else self.prepare(images)
        scores = _require_scores(self.runtime.run(inputs), len(images), self.head)
        return _softmax(scores) if self.probabilities and self.head is not Head.SOFTMAX else scores


def _require_scores(scores: np.ndarray, images: int, head: Head) -> np.ndarray:
    if scores.ndim != 2 or len(scores) != images:
        raise ModelFileError(f"The model is no classifier: its output for {images} images has shape {scores.shape}.")
    broken = int((~np.isfinite(scores).all(axis=1)).sum())
    if broken:  # the largest of them would mean nothing, and might even be right
        kind = "probabilities" if head is Head.SOFTMAX else "logits"
        raise ModelFileError(
            f"The model's {kind} for {broken} of {images} images are not finite (NaN or infinite): look for such "
            "values in its weights, and in the images if they come from an array."
        )
    return scores


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
