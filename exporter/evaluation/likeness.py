"""Whether two computations of one tensor differ by more than their arithmetic explains.

Both start from the same values a layer or a few before, so errors do not accumulate over the depth of a network. Of the
reference's values r and the candidate's y:

    SQNR   10 log₁₀ (Σ r² / Σ (r − y)²), in decibels
    peak   max |r − y| / max |r|

What is explained, for one layer:

    float32    80 dB, peak 2e-4   sums of float32 in another order, or by Winograd's algorithm: 100 dB and more
    float16    40 dB, peak 2e-2   10 bits of mantissa, once, are 60 dB; TensorFloat-32 has as many
    int8       one step           of a tensor that both store as integers: a sum that falls between two of them may be
                                  rounded either way. Steps of another size are never explained: a tensor in coarser
                                  ones is no more than a step off. What such a file leaves in float is held to float16
    8 bits     12 dB              a float tensor against what 8-bit weights and pictures make of it

One weight that is off by its layer's standard deviation shows at 33 dB where a layer has 16 × 144 of them, and with
a peak of 3e-3 where it has 512 × 4608.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rexport.evaluation.result import sqnr_db

__all__ = ["Arithmetic", "Difference", "difference"]

_ONE_STEP = 1.25  # a quarter for the float32 that both multiply the integers with
_SAME = 1e-5  # of two scales that are the same but for their last bits


class Arithmetic(StrEnum):
    """The arithmetic of a reference and a candidate: the coarser of the two."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    EIGHT_BITS = "8 bits against float"

    @property
    def least_sqnr_db(self) -> float:
        """The SQNR of one layer below which the arithmetic does not explain a difference."""
        bounds = {Arithmetic.FLOAT32: 80.0, Arithmetic.EIGHT_BITS: 12.0}
        return bounds.get(self, 40.0)

    @property
    def limit_in_words(self) -> str:
        """What one layer may differ by."""
        limit = f"{self.least_sqnr_db:g} dB"
        return f"{limit} or one quantization step" if self is Arithmetic.INT8 else limit

    @property
    def most_peak(self) -> float:
        """Likewise, the peak above which it does not."""
        return {Arithmetic.FLOAT32: 2e-4, Arithmetic.EIGHT_BITS: math.inf}.get(self, 2e-2)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two computations of a tensor differ.

    Attributes:
        sqnr_db: Infinite where they are equal to the last bit, minus infinity where one is not finite.
        largest: max |r − y|, in the tensor's own unit.
        peak: The same as a fraction of max |r|.
        steps: The same in steps of the reference's integers; ``None`` for a tensor that is not stored as integers.
        other_steps: Whether the candidate's integers have steps of another size.
    """

    sqnr_db: float
    largest: float
    peak: float
    steps: float | None = None
    other_steps: bool = False

    @property
    def largest_in_words(self) -> str:
        """The largest difference: in steps of integers, or relative to the tensor's largest value."""
        if self.other_steps:
            return "other step size"
        return f"{self.peak:.1e} relative" if self.steps is None else f"{self.steps:.1f} steps"

    def explained_by(self, arithmetic: Arithmetic) -> bool:
        """Say whether an arithmetic explains the difference."""
        if self.steps is not None:
            return self.steps <= _ONE_STEP and not self.other_steps
        return self.sqnr_db >= arithmetic.least_sqnr_db and self.peak <= arithmetic.most_peak


def difference(
    expected: np.ndarray, actual: np.ndarray, *, step: np.ndarray | None = None, actual_step: np.ndarray | None = None
) -> Difference:
    """Compare two arrays of one shape, ``(N, ...)``.

    Args:
        expected: The reference's.
        actual: The candidate's.
        step: The step of the reference's integers: a number, or one for each channel; ``None`` if it is float.
        actual_step: That of the candidate's integers, likewise.
    """
    reference, candidate = expected.astype(np.float64), actual.astype(np.float64)
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        if np.array_equal(reference, candidate, equal_nan=True):
            return Difference(sqnr_db=math.inf, largest=0.0, peak=0.0)
        return Difference(sqnr_db=-math.inf, largest=math.inf, peak=math.inf)
    error = np.abs(reference - candidate)
    largest, scale = float(error.max(initial=0.0)), float(np.abs(reference).max(initial=0.0))
    peak = math.inf if largest else 0.0
    if scale:
        peak = largest / scale
    steps, other_steps = None, False
    if step is not None:
        shape = (1, -1, *[1] * (error.ndim - 2)) if step.size > 1 else ()
        steps = float((error / np.reshape(step.astype(np.float64), shape)).max(initial=0.0))
        other_steps = actual_step is not None and not _same(step, actual_step)
    noise = float(np.square(error).sum())
    return Difference(
        sqnr_db=sqnr_db(float(np.square(reference).sum()), noise),
        largest=largest,
        peak=peak,
        steps=steps,
        other_steps=other_steps,
    )


def _same(step: np.ndarray, actual_step: np.ndarray) -> bool:
    return step.size == actual_step.size and np.allclose(step, actual_step, rtol=_SAME)
