"""Changing pictures at random, so that a network sees each of them only once.

Everything random comes in as numbers drawn uniformly from [0, 1), a row per picture: the same numbers give the
same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["PadCropFlip", "ScaleCropFlip"]


@dataclass(frozen=True, kw_only=True)
class PadCropFlip:
    """Pad by ``padding`` pixels, cut out a crop of the old size, flip it half the time (1512.03385, section 4.2).

    Attributes:
        padding: On each side, in pixels.
        color: R, G and B, 0 … 255, of the padding; the mean, which is zero once normalised as in the paper.
    """

    padding: int = 4
    color: tuple[int, int, int]
    draws: ClassVar[int] = 3

    def __call__(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """Map uint8 ``(N, 3, S, S)`` to the same by ``drawn``, ``(N, 3)``: down, right, flip."""
        count, _, size, _ = pixels.shape
        width = size + 2 * self.padding
        padded = torch.tensor(self.color, dtype=torch.uint8).view(1, 3, 1, 1).repeat(count, 1, width, width)
        padded[:, :, self.padding : -self.padding, self.padding : -self.padding] = pixels
        down, right = (drawn[:, :2] * (2 * self.padding + 1)).long().unbind(1)
        windows = padded.unfold(2, size, 1).unfold(3, size, 1)
        crops = windows[torch.arange(count), :, down, right]
        return torch.where((drawn[:, 2] < 0.5).view(-1, 1, 1, 1), crops.flip(3), crops)


@dataclass(frozen=True, kw_only=True)
class ScaleCropFlip:
    """Resize the shorter side to a random length, cut out a random crop, flip it half the time.

    With a shorter side of 256 to 480 pixels for crops of 224 it is section 3.4 of 1512.03385.

    Attributes:
        size: Height and width of the crop, in pixels.
        shorter: The least and the largest shorter side, in pixels.
    """

    size: int
    shorter: tuple[int, int]
    draws: ClassVar[int] = 4

    def __call__(self, image: Image, drawn: Tensor) -> np.ndarray:
        """Map an RGB picture to uint8 ``(size, size, 3)`` by ``drawn``, ``(4,)``: scale, down, right, flip."""
        from PIL.Image import Resampling

        scale, down, right, flip = (float(number) for number in drawn)
        least, largest = self.shorter
        shorter = least + int(scale * (largest - least + 1))
        factor = shorter / min(image.size)
        width, height = (max(shorter, round(side * factor)) for side in image.size)
        left, top = int(right * (width - self.size + 1)), int(down * (height - self.size + 1))
        # only the part that is kept is resized
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + self.size) * x, (top + self.size) * y)
        crop = image.resize((self.size, self.size), Resampling.BILINEAR, box=box)
        pixels = np.asarray(crop)
        return pixels[:, ::-1] if flip < 0.5 else pixels
