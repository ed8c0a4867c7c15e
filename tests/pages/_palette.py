"""The page's colours, as its style sheet has them, and their contrast."""

from __future__ import annotations

import re
from importlib import resources

_CSS = resources.files("rexport.pages").joinpath("page.css").read_text(encoding="utf-8")


def _palette(name: str) -> dict[str, str]:
    (block,) = re.findall(rf"set {name} -%}}(.*?){{%- endset", _CSS, re.DOTALL)
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))


LIGHT, DARK = _palette("light"), _palette("dark")


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours ``#rrggbb``, from 1 to 21, as WCAG defines it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((lighter + 0.05) / (darker + 0.05), 2)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
