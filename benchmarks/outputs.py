"""Whether a model gives what the first one gives: a fast model that is wrong is no result.

Both are shown the same pictures. Of the outputs r of the first model and y of another:

    agreement     the share of pictures with the same top-1
    SQNR          10 log₁₀ (Σ r² / Σ (r − y)²) in decibels, as ``rexport eval`` has it
    following     Σ r' y' / √(Σ r'² Σ y'²), where r' and y' are r and y less their mean over the pictures

y is wrong if it is not finite, if its SQNR is less than its precision explains, or if it does not follow r from picture
to picture. What a precision explains, by the less precise of the two models:

    float32    60 dB   sums of float32 in another order differ by 1e-5 or so, 100 dB, even through many layers
    float16    30 dB   10 bits of mantissa are 60 dB for one rounding; TensorFloat-32, which GPUs take for float32, too
    int8        6 dB   good 8-bit files have 20 to 40 on pictures of their kind, and 11 was seen of one on pictures of
                       noise, which go beyond the ranges that it was calibrated for; below 6, a quarter of the power is
                       error

A constant output is close to r where the outputs of pictures are close to each other, as with random weights: there,
ResNet-50's had an SQNR of 32 dB against their mean, while its INT8 file had 35. But the INT8 file follows it with 0.96
(0.74 even on pictures of noise), and a constant with 0; the bound is 0.5.

Models that say themselves that they are different ones (another network, other weights) are not expected to give the
same, and a network whose weights are drawn anew at every start has nothing to compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Comparison", "Identity", "Precision", "compare_outputs", "precision_of", "top1"]

_FOLLOWS = 0.5
_FLAT_DB = 100.0  # outputs of which the part that differs is so far below the rest are the same but for rounding


class Precision(StrEnum):
    """What a model computes in, as far as its outputs tell."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def least_sqnr_db(self) -> float:
        """The SQNR below which the precision does not explain a difference."""
        return {Precision.FLOAT32: 60.0, Precision.FLOAT16: 30.0, Precision.INT8: 6.0}[self]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a model is, as far as it says; ``None`` where it does not.

    Attributes:
        precision: What it computes in.
        network: The name of its network.
        weights: A hash of the weights it came from.
        softmax: Whether its outputs are probabilities.
    """

    precision: Precision
    network: str | None = None
    weights: str | None = None
    softmax: bool = False

    def may_differ_from(self, other: Identity) -> bool:
        """Say whether both say that they are different models."""
        pairs = ((self.network, other.network), (self.weights, other.weights))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a model's outputs compare with the first one's.

    ``sqnr_db`` is ``None`` where they are equal to the last bit, or not finite; ``wrong`` is ``None`` for another
    model, and ``reason`` says why it is ``True``.
    """

    agreement: float
    sqnr_db: float | None
    wrong: bool | None
    reason: str | None = None


def compare_outputs(
    reference: np.ndarray, reference_identity: Identity, outputs: np.ndarray, identity: Identity
) -> Comparison | None:
    """Compare outputs of shape ``(N, classes)`` for the same pictures; ``None`` if they are of different shapes."""
    if reference.shape != outputs.shape or reference.ndim != 2 or not len(reference):
        return None
    if identity.softmax and not reference_identity.softmax:
        reference = _softmax(reference)
    if reference_identity.softmax and not identity.softmax:
        outputs = _softmax(outputs)
    expected, actual = reference.astype(np.float64), outputs.astype(np.float64)
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return Comparison(agreement=0.0, sqnr_db=None, wrong=True, reason="outputs are not finite (NaN or infinite).")
    agreement = float((expected.argmax(axis=1) == actual.argmax(axis=1)).mean())
    sqnr = _decibels(float(np.square(expected).sum()), float(np.square(expected - actual).sum()))
    comparison = Comparison(agreement=agreement, sqnr_db=sqnr if math.isfinite(sqnr) else None, wrong=None)
    if reference_identity.may_differ_from(identity):
        return comparison
    reason = _why_wrong(expected, actual, sqnr, reference_identity, identity)
    return replace(comparison, wrong=reason is not None, reason=reason)


def top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of pictures whose largest output is that of their label, an index of outputs."""
    return float((outputs.argmax(axis=1) == labels).mean())


def precision_of(model: ir.Model) -> Precision:
    """Return what a file computes in: 8-bit integers if it has Q/DQ, float16 if it has such weights."""
    import onnx_ir as ir

    if any(node.op_type in ("QuantizeLinear", "QLinearConv", "ConvInteger") for node in model.graph):
        return Precision.INT8
    if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
        return Precision.FLOAT16
    return Precision.FLOAT32


def _why_wrong(
    expected: np.ndarray, actual: np.ndarray, sqnr: float, reference_identity: Identity, identity: Identity
) -> str | None:
    order = list(Precision)
    precision = max(reference_identity.precision, identity.precision, key=order.index)
    if sqnr < precision.least_sqnr_db:
        return (
            f"its outputs differ from the first model's: SQNR {sqnr:.0f} dB, where {precision} should have at least "
            f"{precision.least_sqnr_db:.0f} dB."
        )
    followed = _following(expected, actual)
    if followed is not None and followed < _FOLLOWS:
        return f"its outputs do not follow the first model's from picture to picture (correlation {followed:.2f})."
    return None


def _following(expected: np.ndarray, actual: np.ndarray) -> float | None:
    """Return the correlation over pictures; ``None`` where the first model's outputs are the same for all of them."""
    x, y = expected - expected.mean(axis=0), actual - actual.mean(axis=0)
    power = float(np.square(x).sum())
    if _decibels(float(np.square(expected).sum()), power) > _FLAT_DB:
        return None
    product = power * float(np.square(y).sum())
    return float((x * y).sum()) / math.sqrt(product) if product else 0.0


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(max(signal, 1e-300) / noise)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
