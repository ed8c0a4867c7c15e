"""Random pictures for a proof: the inputs of the model, and those of its PyTorch module.

A model that resizes pictures itself is compared with Pillow up to there, and the module gets the model's own resized
pixels: the two grey levels that rounding in two passes may differ by are far more than the float32 rounding allowed for
the network behind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx_ir.passes import common

from rexport._errors import VerificationError
from rexport.exporting._sizes import other_size
from rexport.model_file import to_bytes
from rexport.model_inputs import image_input, preprocessing_of
from rexport.passes.resize_in_graph import cut_pixels
from rexport.preprocessing import PictureOptions, Takes, picture_of, sides_of
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.preprocessing import Size

__all__ = ["RandomPictures"]

# Pillow's weights have 22 bits and ONNX Runtime's are float32, so a sum that is close to a half may be rounded to the
# other side: by one level in the pass along the rows, and in the one along the columns. Over thousands of pictures,
# noise and smooth, one in fifty differed by two somewhere and none by three; a filter that repeats the border instead
# of leaving it out differs by 13.
_MOST_LEVELS = 2


class RandomPictures:
    """Draws pictures for a model whose usual pictures have one ``size``.

    Attributes:
        sizes: Heights and widths to try; more than one where the model takes any.
        levels: The largest difference from Pillow so far; ``None`` if the model does not resize.
    """

    def __init__(self, model: ir.Model, *, size: Size, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        image = image_input(model)
        self._name = image.name
        self._preprocessing = preprocessing_of(model, options=PictureOptions(size=None if image.size else size))
        self.levels: int | None = None
        self.sizes: tuple[tuple[int, int], ...] = (sides_of(size),)
        if self._preprocessing.takes is Takes.PICTURES:
            self._front = open_session(to_bytes(_front_of(model)))
            resize = self._preprocessing.resize
            assert isinstance(resize, int)  # models resize the shorter side only
            self.sizes += (other_size(size), (3 * resize, 2 * resize + 1))
        elif image.size is None:
            self.sizes += (other_size(size),)

    def draw(self, batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the input of the model, and that of the module: float32 of shape ``(N, C, H, W)``.

        Raises:
            VerificationError: The model resizes and cuts pictures differently from Pillow.
        """
        channels = self._preprocessing.channels
        if not self._preprocessing.takes.raw:
            images = self._random.standard_normal((batch, channels, height, width), dtype=np.float32)
            return images, images
        pictures = self._random.integers(0, 256, (batch, height, width, channels), np.uint8)
        pixels = self._resized(pictures) if self._preprocessing.takes is Takes.PICTURES else pictures
        return pictures, replace(self._preprocessing, takes=Takes.NORMALISED, layout=None).to_input(pixels)

    def _resized(self, pictures: np.ndarray) -> np.ndarray:
        """Return the pictures as the model resizes and cuts them."""
        pixels: np.ndarray = self._front.run(None, {self._name: pictures})[0]
        expected = np.stack([self._preprocessing.crop(picture_of(picture)) for picture in pictures])
        levels = 255
        if pixels.shape == expected.shape:
            levels = int(np.abs(pixels.astype(int) - expected).max())
        if levels > _MOST_LEVELS:
            height, width = pictures.shape[1:3]
            raise VerificationError(
                f"The exported model resizes and crops pictures of {height}×{width} differently from "
                f"Pillow: by {levels} of 255 levels (limit {_MOST_LEVELS})."
            )
        self.levels = max(levels, self.levels or 0)
        return pixels


def _front_of(model: ir.Model) -> ir.Model:
    """Return the part of a model that resizes and cuts pictures."""
    copy = model.clone()
    copy.graph.outputs.clear()
    copy.graph.outputs.append(cut_pixels(copy))
    common.RemoveUnusedNodesPass()(copy)
    return copy
