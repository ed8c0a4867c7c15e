"""An affine map of a convolution's input, moved into its weights although the convolution pads with zeros.

For a picture x of C channels, padded with zeros, and a map a x + c per channel (see ``_batch_norm``), what is wanted is

    W ∗ pad(a x + c) + b

in which the map's shift c counts inside the picture and not in the padding around it. A picture has no channel that
says so; given one more that is ``one`` everywhere, its padding is zero like that of the others, so that

    pad(a x + c)  =  a pad(x) + (c / one) pad(one)

at every position, borders included, and the convolution of C + 1 channels with

    W'[o, i] = W[o, i] a[i],     W'[o, C] = Σ_i W[o, i] c[i] / one

is the one wanted, with the bias as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rexport.passes._batch_norm import Affine

__all__ = ["with_channel_of_ones"]


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
