"""Random pictures for a proof: the inputs of the model, and those of its PyTorch module.

A model that resizes pictures itself is compared with Pillow up to there, and the module gets the model's own resized
pixels: the two grey levels that rounding in two passes may differ by are far more than the float32 rounding allowed for
the network behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx_ir.passes import common
from PIL import Image

from rexport._errors import VerificationError
from rexport.exporting._sizes import other_size
from rexport.model_file import Metadata, image_input, to_bytes
from rexport.passes.resize_in_graph import cut_pixels
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

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

    def __init__(self, model: ir.Model, *, size: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._name = image_input(model).name
        self._preprocessing = Metadata.of(model).preprocessing or Preprocessing(size=size)
        self.levels: int | None = None
        self.sizes: tuple[tuple[int, int], ...] = ((size, size),)
        if self._preprocessing.takes is Takes.PICTURES:
            self._front = open_session(to_bytes(_front_of(model)))
            resize = self._preprocessing.resize or size
            self.sizes += (other_size(size), (3 * resize, 2 * resize + 1))
        elif image_input(model).size is None:
            self.sizes += (other_size(size),)

    def draw(self, batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the input of the model, and that of the module: float32 of shape ``(N, 3, H, W)``.

        Raises:
            VerificationError: The model resizes and cuts pictures differently from Pillow.
        """
        if not self._preprocessing.takes.raw:
            images = self._random.standard_normal((batch, 3, height, width), dtype=np.float32)
            return images, images
        pictures = self._random.integers(0, 256, (batch, height, width, 3), np.uint8)
        pixels = self._resized(pictures) if self._preprocessing.takes is Takes.PICTURES else pictures
        return pictures, self._preprocessing.normalise(pixels)

    def _resized(self, pictures: np.ndarray) -> np.ndarray:
        """Return the pictures as the model resizes and cuts them."""
        pixels: np.ndarray = self._front.run(None, {self._name: pictures})[0]
        expected = np.stack([self._preprocessing.crop(Image.fromarray(picture)) for picture in pictures])
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
