"""Small pictures in class folders: the classes differ by their colour, so that a network can tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["pixels_of", "write_images"]

_COLORS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])


def pixels_of(label: int, count: int, *, size: int = 32, seed: int = 0) -> np.ndarray:
    """Return uint8 ``(count, size, size, 3)``: noise around the colour of a class."""
    noise = np.random.default_rng([seed, label]).integers(-60, 55, (count, size, size, 3))
    return (_COLORS[label] + noise).astype(np.uint8)


def write_images(
    folder: Path, classes: Sequence[str] = ("blue", "red"), *, count: int = 20, size: int = 32, seed: int = 0
) -> Path:
    """Write ``count`` pictures into ``folder/<class>`` for each class, and return ``folder``."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pixels_of(label, count, size=size, seed=seed)):
            Image.fromarray(picture).save(folder / name / f"{index:03d}.png")
    return folder
