"""Small copies of pictures, as a model sees them, for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport.calibration import WholePictures
from rexport.calibration.dataset import BadImage
from rexport.calibration.decoding import read_picture
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.calibration import Views
    from rexport.preprocessing import Preprocessing

__all__ = ["Thumbnail", "thumbnail"]

_SIDE = 224  # pixels, the longest; on screens of two pixels to one it is shown at about 150
_FEW_PIXELS = 64


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A picture as a ``data:`` address.

    Attributes:
        address: A PNG if it has few pixels, and otherwise a JPEG.
        width: In pixels.
        height: In pixels.
        few_pixels: Whether it is as small as CIFAR's, so that single pixels can be shown.
    """

    address: str
    width: int
    height: int
    few_pixels: bool


def thumbnail(path: Path, preprocessing: Preprocessing, views: Views) -> Thumbnail | None:
    """Return a picture, cut out as for the model, or whole for one that takes those; ``None`` if it can't be read."""
    if isinstance(views, WholePictures):
        preprocessing = replace(preprocessing, takes=Takes.PICTURES)
    image = read_picture(path, preprocessing.seen)
    if isinstance(image, BadImage):
        return None
    few_pixels = max(image.size) <= _FEW_PIXELS
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG" if few_pixels else "JPEG", optimize=True)
    kind = "png" if few_pixels else "jpeg"
    data = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(
        address=f"data:image/{kind};base64,{data}", width=image.width, height=image.height, few_pixels=few_pixels
    )
