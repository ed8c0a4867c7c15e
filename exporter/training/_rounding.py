"""Rounding to integers that lets gradients pass: the straight-through estimator.

    q = clip(round(x / s) + z, low, high)        y = s (q − z)        ∂y/∂x = 1 where x is in range, else 0

Jacob et al. 2017, arXiv:1712.05877; Bengio et al. 2013, arXiv:1308.3432. Rounding is to nearest even, as in
QuantizeLinear, and the numbers are those of ``quantization.schemes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rexport.quantization.schemes import with_scales_of_zeros

if TYPE_CHECKING:
    from torch import Tensor

    from rexport.quantization.schemes import Integers

__all__ = ["INT32", "along_axis", "round_tensor", "round_weight"]

INT32 = (-(2**31), 2**31 - 1)


def round_tensor(x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int]) -> Tensor:
    """Return ``x`` as integers would hold it, float32 of its shape.

    Args:
        x: float32.
        scale: A scalar, or of a shape that broadcasts with ``x``.
        zero_point: Likewise, in floats.
        limits: The lowest and the highest integer.
    """
    with torch.no_grad():
        lowest, highest = (limits[0] - zero_point) * scale, (limits[1] - zero_point) * scale
        rounded = (torch.clamp(torch.round(x / scale) + zero_point, *limits) - zero_point) * scale
    passing = torch.minimum(torch.maximum(x, lowest), highest)
    return passing + (rounded - passing).detach()


def round_weight(weight: Tensor, integers: Integers, *, axis: int, smallest_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight as :func:`rexport.quantization.schemes.of_weight` would store it, and its scales.

    Args:
        weight: float32 of shape ``(O, ...)``, or with the ``O`` output channels on another axis.
        integers: A symmetric range.
        axis: That of the output channels.
        smallest_scale: What no channel's scale may fall below, ``(O,)``.
    """
    with torch.no_grad():
        largest = weight.abs().amax([index for index in range(weight.ndim) if index != axis])
        own = torch.from_numpy(with_scales_of_zeros((largest.double() / integers.high).cpu().numpy())).to(
            smallest_scale
        )
        scale = torch.maximum(own, smallest_scale).float()
    along = along_axis(scale, axis, weight.ndim)
    return round_tensor(weight, along, torch.zeros(()).to(weight), (integers.low, integers.high)), scale


def along_axis(values: Tensor, axis: int, dimensions: int) -> Tensor:
    """Return ``(O,)`` in the shape that broadcasts along one axis of a tensor."""
    shape = [1] * dimensions
    shape[axis] = -1
    return values.reshape(shape)
