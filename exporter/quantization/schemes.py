"""Integers for floats: the affine maps, without graphs.

    q = clip(round(x / s) + z, low, high)        x ≈ s (q − z)

Jacob et al. 2017, arXiv:1712.05877; QuantizeLinear of the ONNX operators, which rounds to nearest even too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rexport.calibration import TensorRange

__all__ = [
    "INT8",
    "INT8_FULL",
    "INT8_HALF",
    "SMALLEST_SCALE",
    "UINT8",
    "Integers",
    "Quantization",
    "of_range",
    "of_weight",
    "rounded_up",
    "with_scales_of_zeros",
]

# A denormal scale would make 1/s overflow; a tensor this small is zero for every purpose.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 2**8


@dataclass(frozen=True, kw_only=True)
class Integers:
    """A range of 8-bit integers: the stored ``dtype``, and its lowest and highest used numbers."""

    dtype: type[np.int8] | type[np.uint8]
    low: int
    high: int

    @property
    def symmetric(self) -> bool:
        """Whether the range is the same on both sides of zero, so that the zero point is zero."""
        return self.low == -self.high

    @property
    def steps(self) -> int:
        """The number of steps from the lowest to the highest; of a symmetric range, from zero to either end."""
        return self.high if self.symmetric else self.high - self.low


UINT8 = Integers(dtype=np.uint8, low=0, high=255)
INT8 = Integers(dtype=np.int8, low=-127, high=127)
# With a zero point, as uint8 has: the result of a ReLU uses all of it.
INT8_FULL = Integers(dtype=np.int8, low=-128, high=127)
# Half of the range: a pair of products uint8 × int8 then fits the 16 bits in which processors without VNNI add them up
# (2 · 255 · 64 = 32,640 < 32,768).
INT8_HALF = Integers(dtype=np.int8, low=-64, high=64)


@dataclass(frozen=True)
class Quantization:
    """A scale (float32) and a zero point (of the integers' dtype): scalars, or one per channel, shape ``(C,)``."""

    scale: np.ndarray
    zero_point: np.ndarray


def of_range(values: TensorRange, integers: Integers) -> Quantization:
    """Return the map whose integers just cover ``values`` and zero; zero is exact, as padding and ReLU need it."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    reach = max(-low, high) if integers.symmetric else high - low
    scale, zero_point = np.float32(reach / integers.steps), 0
    if scale < SMALLEST_SCALE:  # the tensor is always zero
        scale = np.float32(1)
    elif not integers.symmetric:
        zero_point = int(np.clip(np.rint(integers.low - low / scale), integers.low, integers.high))
    return Quantization(np.asarray(scale), np.asarray(zero_point, integers.dtype))


def of_weight(
    weight: np.ndarray,
    integers: Integers,
    *,
    axis: int = 0,
    smallest_scale: np.ndarray | float = 0.0,
    exact_in: type[np.floating] = np.float32,
) -> tuple[Quantization, np.ndarray]:
    """Quantize a weight per output channel, symmetrically.

    Args:
        weight: float32 of shape ``(O, ...)``, or with the ``O`` output channels on another axis.
        integers: A symmetric range.
        axis: That of the output channels.
        smallest_scale: The lower bound of each channel's scale, scalar or ``(O,)``.
        exact_in: The type that represents the scales exactly (see :func:`rounded_up`).

    Returns:
        The map, with scales of shape ``(O,)``, and the integers, of the weight's shape.
    """
    within_channel = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=within_channel, initial=0.0)
    scale = np.maximum(with_scales_of_zeros(largest / integers.high), smallest_scale).astype(np.float32)
    scale = rounded_up(scale, exact_in)
    per_channel = np.expand_dims(scale, within_channel)
    quantized = np.clip(np.rint(weight / per_channel), integers.low, integers.high).astype(integers.dtype)
    return Quantization(scale, np.zeros(len(scale), integers.dtype)), quantized


def with_scales_of_zeros(scale: np.ndarray) -> np.ndarray:
    """Return scales in which channels of zeros have the largest of the others: it is the step of their bias too."""
    is_zero = scale < SMALLEST_SCALE
    return np.where(is_zero, np.float32(1) if is_zero.all() else scale.max(), scale)


def rounded_up(scale: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Return scales rounded up to numbers of ``dtype``, in float32, so that ranges stay covered.

    A scale that is too large for ``dtype`` stays as it is.
    """
    with np.errstate(over="ignore"):
        nearest = scale.astype(dtype)
    larger = np.where(nearest.astype(np.float32) < scale, np.nextafter(nearest, dtype(np.inf)), nearest)
    return np.where(np.isfinite(larger), larger.astype(np.float32), scale)


def of_bias(bias: np.ndarray, input_scale: np.ndarray, weight_scale: np.ndarray) -> tuple[Quantization, np.ndarray]:
    """Quantize a bias to int32, in which the products are added up: its scale is the product of both scales."""
    scale = (input_scale.astype(np.float64) * weight_scale).astype(np.float32)
    limits = np.iinfo(np.int32)
    quantized = np.clip(np.rint(bias.astype(np.float64) / scale), limits.min, limits.max).astype(np.int32)
    return Quantization(scale, np.zeros(len(bias), np.int32)), quantized


def smallest_weight_scale(bias: np.ndarray, input_scale: np.ndarray) -> np.ndarray:
    """Return the weight scales, shape ``(O,)``, below which the bias would not fit into int32, or its scale be zero."""
    # half of int32, so that there is room for the sum of products
    smallest = np.maximum(np.abs(bias.astype(np.float64)) / 2**30, SMALLEST_SCALE)
    scales: np.ndarray = smallest / input_scale.astype(np.float64)
    return scales
