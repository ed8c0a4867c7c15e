"""An affine map of a convolution's input, moved into its weights although the convolution pads with zeros.

For a picture x of C channels, padded with zeros, and a map a x + c per channel (see ``_batch_norm``), the result is

    W ∗ pad(a x + c) + b

in which the map's shift c counts inside the picture and not in the padding around it. With one more channel that is v
everywhere inside the picture, and zero in the padding as the others are,

    pad(a x + c)  =  a pad(x) + (c / v) pad(v)

at every position, borders included, so a convolution of C + 1 channels with the same bias computes that result:

    W'[o, i] = W[o, i] a[i],     W'[o, C] = Σ_i W[o, i] c[i] / v

In INT8 the weights of an output share one scale, and all channels of the picture another: where v is not about as large
as the picture's numbers, one of the two scales is too coarse. The number that is mapped to 0, −c/a, is about as large;
the power of two nearest to it changes no digits of the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import finfo

if TYPE_CHECKING:
    from rexport.passes._batch_norm import Affine

__all__ = ["border_value", "with_constant_channel"]


def border_value(affine: Affine, dtype: np.dtype[Any]) -> float:
    """Return the value of the additional channel: plus or minus a power of two that ``dtype`` can represent.

    Args:
        affine: The map of the input, with a shift other than 0.
        dtype: That of the picture.
    """
    scale, shift = np.abs(affine.scale).max(), np.abs(affine.shift).max()
    exponent = np.rint(np.log2(shift / scale)) if scale else 0
    limits = finfo(dtype)  # type: ignore[no-untyped-call]
    sign = -1 if (affine.scale * affine.shift).sum() > 0 else 1
    return sign * float(2.0 ** np.clip(exponent, limits.minexp, limits.maxexp - 1))


def with_constant_channel(weight: np.ndarray, affine: Affine, *, value: float) -> np.ndarray:
    """Return the weight of the convolution that reads the picture as it is and a channel that is ``value`` everywhere.

    Args:
        weight: float64 of shape ``(O, C, ...)``, of a convolution without groups.
        affine: The map of its input, ``C`` channels.
        value: The value of the additional channel, not zero.

    Returns:
        float64 of shape ``(O, C + 1, ...)``.
    """
    per_channel = (1, -1, *[1] * (weight.ndim - 2))
    shifted = (weight * affine.shift.reshape(per_channel)).sum(axis=1, keepdims=True) / value
    return np.concatenate([weight * affine.scale.reshape(per_channel), shifted], axis=1)
