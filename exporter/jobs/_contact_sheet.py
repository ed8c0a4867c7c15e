"""A contact sheet: pictures side by side, as a model sees them, each with a caption."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rexport._errors import OutputError
from rexport._files import atomic_path, check_writable
from rexport.device._pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport.preprocessing import Preprocessing

__all__ = ["check_contact_sheet", "write_contact_sheet"]

_SIDE, _GAP, _LINE, _COLUMNS = 192, 12, 18, 5  # pixels, but for the columns


def check_contact_sheet(path: Path) -> None:
    """Raise :class:`OutputError` if no sheet can be written to ``path``."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise OutputError(f"{path} must end in .png or .jpg.")
    check_writable(path)


def write_contact_sheet(
    path: Path, pictures: Sequence[Path], captions: Sequence[Sequence[str]], preprocessing: Preprocessing
) -> None:
    """Write a picture of pictures, cut out as for the model, with the lines of their captions below them."""
    columns = min(_COLUMNS, len(pictures))
    lines = max(map(len, captions))
    cell_width, cell_height = _SIDE + _GAP, _SIDE + _GAP + lines * _LINE
    size = (columns * cell_width + _GAP, math.ceil(len(pictures) / columns) * cell_height + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + index % columns * cell_width, _GAP + index // columns * cell_height
        seen = ImageOps.pad(read_picture(picture, preprocessing.seen), (_SIDE, _SIDE), color="white")
        sheet.paste(seen, (x, y))
        for number, text in enumerate(caption):
            draw.text((x, y + _SIDE + 2 + number * _LINE), _shortened(text, font), "black", font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while font.getlength(text) > _SIDE and len(text) > 1:
        text = text[:-2] + "…"
    return text
