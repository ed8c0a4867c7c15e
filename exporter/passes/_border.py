"""An affine map of a convolution's input, moved into its weights although the convolution pads with zeros.

For a picture x of C channels, padded with zeros, and a map a x + c per channel (see ``_batch_norm``), what is wanted is

    W ∗ pad(a x + c) + b

in which the map's shift c counts inside the picture and not in the padding around it. A picture has no channel that
says so; given one more that is ``one`` everywhere, its padding is zero like that of the others, so that

    pad(a x + c)  =  a pad(x) + (c / one) pad(one)

at every position, borders included, and the convolution of C + 1 channels with

    W'[o, i] = W[o, i] a[i],     W'[o, C] = Σ_i W[o, i] c[i] / one

is the one wanted, with the bias as it was.

In INT8 the weights of an output share one scale, and all channels of the picture another: where ``one`` is not about as
large as the picture's numbers, one of both is coarse. What is mapped to 0 is such a number, −c/a. The power of two next
to that changes no digits of the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import finfo

if TYPE_CHECKING:
    from rexport.passes._batch_norm import Affine

__all__ = ["one_for", "with_channel_of_ones"]


def one_for(affine: Affine, dtype: np.dtype[Any]) -> float:
    """Return what to put in the additional channel: plus or minus a power of two that ``dtype`` has.

    Args:
        affine: The map of the input, with a shift other than 0.
        dtype: Of the picture.
    """
    scale, shift = np.abs(affine.scale).max(), np.abs(affine.shift).max()
    exponent = np.rint(np.log2(shift / scale)) if scale else 0
    limits = finfo(dtype)  # type: ignore[no-untyped-call]
    below_zero = (affine.scale * affine.shift).sum() > 0
    return float(2.0 ** np.clip(exponent, limits.minexp, limits.maxexp - 1)) * (-1 if below_zero else 1)


def with_channel_of_ones(weight: np.ndarray, affine: Affine, *, one: float = 1.0) -> np.ndarray:
    """Return the weight of the convolution that reads the picture as it is and a channel that is ``one`` everywhere.

    Args:
        weight: float64 of shape ``(O, C, ...)``, of a convolution without groups.
        affine: The map of its input, ``C`` channels.
        one: The value of the additional channel, not zero.

    Returns:
        float64 of shape ``(O, C + 1, ...)``.
    """
    per_channel = (1, -1, *[1] * (weight.ndim - 2))
    shifted = (weight * affine.shift.reshape(per_channel)).sum(axis=1, keepdims=True) / one
    return np.concatenate([weight * affine.scale.reshape(per_channel), shifted], axis=1)
