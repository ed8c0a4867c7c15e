"""The colours of the HTML report, for light and dark.

Text has a contrast of at least 4.5 to its background and marks of charts at least 3 (WCAG 2.2, 1.4.3 and 1.4.11).
Neighbouring series also differ in their markers, so that nobody has to tell colours apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLOURS", "DARK", "LIGHT", "contrast", "css_variables"]

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "panel": "#f4f6f8",
    "line": "#d3d9df",
    "text": "#1a2027",
    "quiet": "#55606c",
    "good": "#0b6b3a",
    "bad": "#b3141d",
    "caution": "#8a5300",
    "s0": "#0a62b5",
    "s1": "#b84a00",
    "s2": "#00785a",
    "s3": "#9a2a86",
    "s4": "#5b5f00",
    "s5": "#007390",
    "s6": "#b3264a",
    "s7": "#4b4f9e",
}
DARK: Mapping[str, str] = {
    "page": "#12161b",
    "panel": "#1b2128",
    "line": "#39434e",
    "text": "#e6eaee",
    "quiet": "#a3afbb",
    "good": "#5fd08e",
    "bad": "#ff8a85",
    "caution": "#f0b357",
    "s0": "#6cb2f7",
    "s1": "#ff9a57",
    "s2": "#4bd0a5",
    "s3": "#e48ad2",
    "s4": "#cfd05a",
    "s5": "#58cbe6",
    "s6": "#ff8ba6",
    "s7": "#a9aef5",
}
COLOURS = sum(name[1:].isdigit() for name in LIGHT)


def css_variables(palette: Mapping[str, str]) -> str:
    """Return the palette as CSS custom properties."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours ``#rrggbb``, from 1 to 21, as WCAG defines it.

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((lighter + 0.05) / (darker + 0.05), 2)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
