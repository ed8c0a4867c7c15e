"""From a picture's file to the model's input, as rexport prepares pictures, by NumPy alone.

    x[c, i, j] = (pixel[i, j, c] / 255 − mean[c]) / std[c]

after the shorter side was resized to ``resize`` pixels, or the picture to this height and width, and the middle
``size`` was cut out; a model may do some of it itself. Pillow is asked only to read JPEG and PNG; ``.ppm`` and ``.npy``
need none.

Resizing is Pillow's antialiased filter f, bilinear or bicubic: with the scale s = old / new, and w = max(s, 1), a pixel
i of the result is the sum of those at j, each with the weight f(|j + ½ − (i + ½) s| / w), normalised and rounded to 22
bits after the point; first along rows, rounded to 8 bits, then along columns. Pillow 13 takes the columns first where
that is less work, which is another rounding: by 1 of 255, in a few pixels (bicubic: by more, next to white and black).
With a = −½ (Keys 1981),

    bilinear  f(x) = 1 − x, x < 1
    bicubic   f(x) = (a + 2) x³ − (a + 3) x² + 1, x < 1;  a x³ − 5 a x² + 8 a x − 4 a, 1 ≤ x < 2
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL.Image import Image

    _R = TypeVar("_R")

__all__ = ["PictureError", "model_input", "read_picture", "resized", "with_channels"]

_BITS = 22
_PPM = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(?:#[^\n]*\n\s*)*255\s")


class PictureError(ValueError):
    """A picture can't be taken; the message is what goes between its name and a full stop."""


def model_input(path: Path, preprocessing: dict[str, Any], golden: np.ndarray) -> np.ndarray:
    """Return what the model takes of a picture, a batch of one.

    Args:
        path: A picture; or a ``.npy`` file, of a picture's pixels or of an input that is ready.
        preprocessing: The manifest's.
        golden: The bundle's golden input, whose type and rank a ready input must have.

    Raises:
        PictureError: It can't be read, or is not what the model takes.
    """
    import numpy as np

    channels = len(preprocessing["mean"])
    pixels = _read(path, channels)
    if pixels.dtype == golden.dtype and pixels.shape[1:] == golden.shape[1:] and pixels.ndim == golden.ndim:
        return pixels  # ready
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
        raise PictureError(
            f"holds {pixels.dtype} of shape {pixels.shape}, neither pixels (uint8, height × width × {channels}) nor "
            f"an input of the model ({golden.dtype}, {(1, *golden.shape[1:])})"
        )
    done_inside = set(preprocessing.get("in_graph", ()))
    if "crop" not in done_inside:
        bicubic = str(preprocessing.get("interpolation")).startswith("bicubic")
        pixels = _crop(pixels, _sides(preprocessing["size"]), preprocessing["resize"], bicubic=bicubic)
    if "normalise" not in done_inside:
        scaled = pixels.astype(np.float32) / np.float32(255)
        mean, std = (np.asarray(preprocessing[key], np.float32) for key in ("mean", "std"))
        pixels = (scaled - mean) / std
    if preprocessing["layout"] == "NCHW":
        pixels = np.moveaxis(pixels, -1, 0)
    picture: np.ndarray = np.ascontiguousarray(pixels)[np.newaxis]
    return picture.astype(golden.dtype)


def resized(pixels: np.ndarray, width: int, height: int, *, bicubic: bool = False) -> np.ndarray:
    """Resize pixels, uint8 of shape ``(H, W, 3)``, as Pillow does."""
    if width != pixels.shape[1]:
        pixels = _along(pixels.transpose(1, 0, 2), width, bicubic=bicubic).transpose(1, 0, 2)
    if height != pixels.shape[0]:
        pixels = _along(pixels, height, bicubic=bicubic)
    return pixels


def _sides(size: int | list[int]) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _crop(pixels: np.ndarray, sides: tuple[int, int], resize: int | list[int] | None, *, bicubic: bool) -> np.ndarray:
    height, width = pixels.shape[:2]
    if resize is None:
        if (height, width) != sides:
            raise PictureError(
                f"is {height}×{width} pixels, and the model takes {sides[0]}×{sides[1]} without resizing"
            )
        return pixels
    if isinstance(resize, int):
        short, long = sorted((width, height))
        longer = int(resize * long / short)
        resize = [longer, resize] if width <= height else [resize, longer]
    height, width = resize
    pixels = resized(pixels, width, height, bicubic=bicubic)
    y, x = (round((side - cut) / 2) for side, cut in zip(pixels.shape, sides))
    return pixels[y : y + sides[0], x : x + sides[1]]


def _along(pixels: np.ndarray, new: int, *, bicubic: bool) -> np.ndarray:
    """Resize along the first axis."""
    import numpy as np

    old = pixels.shape[0]
    scale = old / new
    wide = max(scale, 1.0)
    support = 2.0 * wide if bicubic else wide
    weights = np.zeros((new, old))
    for index in range(new):
        centre = (index + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), old)
        away = np.abs((np.arange(first, last) - centre + 0.5) * (1.0 / wide))
        row = _cubic(away) if bicubic else np.maximum(0.0, 1.0 - away)
        row = row / row.sum() * (1 << _BITS)
        weights[index, first:last] = np.trunc(row + np.copysign(0.5, row))
    # below 2^53, so that float64 adds them up exactly
    sums = weights @ pixels.reshape(old, -1).astype(np.float64)
    rounded = np.floor((sums + (1 << (_BITS - 1))) / (1 << _BITS))
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(new, *pixels.shape[1:])


def _cubic(x: np.ndarray) -> np.ndarray:
    import numpy as np

    a = -0.5
    inner, outer = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


def read_picture(path: Path, take: Callable[[Image], _R]) -> _R:
    """Open a picture with Pillow and return what ``take`` makes of it.

    Raises:
        PictureError: It can't be decoded.
        ImportError: There is no Pillow.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return take(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("is not an image that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"can't be decoded ({error})") from error


def with_channels(image: Image, channels: int) -> Image:
    """Return the picture with 1 (grey), 3 (RGB) or 4 (RGBA) channels of 8 bits; its orientation is left alone.

    It is the upper byte of 16-bit grey, which Pillow would clip to white; of 16-bit colour, Pillow only reads that.

    Raises:
        PictureError: Its pixels have no known white.
    """
    import numpy as np
    from PIL.Image import fromarray

    # Pillow before 10.3 opens grey PNGs of 16 bits, the most that PNGs have, in the mode of 32
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PictureError("has pixels of 32 bits, and which of them are white is not known; save it with 8 bits")
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def _read(path: Path, channels: int) -> np.ndarray:
    import numpy as np

    if path.suffix == ".npy":
        array: np.ndarray = np.load(str(path), allow_pickle=False)
        return array
    if path.suffix == ".ppm":
        pixels = _ppm(path)
        if pixels is not None:
            return _of_rgb(pixels, channels)
    try:
        pixels = read_picture(path, lambda image: np.asarray(with_channels(image, channels)))
    except ImportError as error:
        raise PictureError(
            "can't be read: pictures other than .ppm (P6) and .npy take Pillow, which is not installed; type "
            "`pip install pillow`"
        ) from error
    return pixels.reshape((*pixels.shape[:2], channels))


def _of_rgb(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return RGB pixels with other channels, as Pillow converts them."""
    import numpy as np

    if channels == 1:
        luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)  # of ITU-R BT.601, in 16 bits
        return ((luma + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]
    if channels == 4:
        return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)
    return pixels


def _ppm(path: Path) -> np.ndarray | None:
    """Return the pixels of a binary PPM of 8 bits, ``None`` where it is something else, which Pillow may know."""
    import numpy as np

    data = path.read_bytes()
    match = _PPM.match(data)
    if match is None:
        return None
    width, height = int(match.group(1)), int(match.group(2))
    if len(data) - match.end() != 3 * width * height:
        raise PictureError(f"can't be decoded: a PPM of {width}×{height} pixels has another length")
    return np.frombuffer(data, np.uint8, offset=match.end()).reshape(height, width, 3)
