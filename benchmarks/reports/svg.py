"""SVG by hand: elements with everything escaped, markers, and the frame of a chart.

Colours are classes of the page (``s0`` … for series), so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rexport.benchmarks.reports.palette import COLOURS
from rexport.benchmarks.reports.scales import number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rexport.benchmarks.reports.scales import Scale

__all__ = ["HEIGHT", "WIDTH", "Frame", "Style", "drawing", "element", "marker", "text"]

# in the drawing's own units, at which letters are readable both on a phone and beside another chart
WIDTH, HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 30, 46
_INSET = 12  # room for the markers at the ends of an axis

_DASHES = (None, "6 4", "2 3", "9 3 2 3")
_R = 4.5
# around (0, 0); each looks different without its colour
_MARKERS = (
    f"M{-_R} 0a{_R} {_R} 0 1 0 {2 * _R} 0a{_R} {_R} 0 1 0 {-2 * _R} 0z",
    "M-4-4h8v8h-8z",
    "M0-5.5 5 4h-10z",
    "M0-6 5 0 0 6-5 0z",
    "M0 5.5 5-4h-10z",
    "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-5.5 0 4-5v10z",
    "M5.5 0-4-5v10z",
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a series looks: colour and marker by ``model``, dashes and hollow markers by ``variant`` (its runtime)."""

    model: int
    variant: int

    @property
    def css_class(self) -> str:
        """The class that has its colour."""
        return f"s{self.model % COLOURS}"

    @property
    def dash(self) -> str | None:
        """The pattern of its line; ``None`` for a solid one."""
        return _DASHES[self.variant % len(_DASHES)]

    @property
    def outline(self) -> str:
        """The path of its marker around the origin."""
        return _MARKERS[(self.model + self.model // COLOURS) % len(_MARKERS)]

    @property
    def hollow(self) -> bool:
        """Whether its marker is an outline only."""
        return self.variant % 2 == 1


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The axes of a chart and where values stand in it."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a value in the drawing's units."""
        across = WIDTH - _LEFT - _RIGHT - 2 * _INSET
        up = HEIGHT - _TOP - _BOTTOM
        return (
            round(_LEFT + _INSET + across * self.x.position(x), 2),
            round(HEIGHT - _BOTTOM - up * self.y.position(y), 2),
        )

    def drawn(
        self,
        x_label: str,
        y_label: str,
        *,
        x_tick: Callable[[float], str] = number,
        y_tick: Callable[[float], str] = number,
    ) -> str:
        """Return grid, ticks and labels."""
        left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
        parts = []
        for value in self.y.ticks:
            _, y = self.at(self.x.low, value)
            parts.append(element("path", {"class": "grid", "d": f"M{left} {y}H{right}"}))
            parts.append(text(left - 7, y + 4, y_tick(value), anchor="end"))
        shown = -1e9
        for value in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            parts.append(element("path", {"class": "axis", "d": f"M{x} {bottom}v5"}))
            if x - shown >= 26:  # no number upon another
                parts.append(text(x, bottom + 18, x_tick(value), anchor="middle"))
                shown = x
        parts.append(element("path", {"class": "axis", "d": f"M{left} {bottom}H{right}"}))
        parts.append(text((left + right) / 2, HEIGHT - 8, x_label, anchor="middle", css_class="label"))
        parts.append(text(4, 12, y_label, css_class="label"))
        return "".join(parts)


def element(name: str, attributes: Mapping[str, str | float | None], *content: str) -> str:
    """Return an element; attributes are escaped, those that are ``None`` left out; ``content`` is markup already."""
    written = "".join(f' {key}="{escape(str(value))}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{written}>{''.join(content)}</{name}>"


def text(x: float, y: float, content: str, *, anchor: str = "start", css_class: str | None = None) -> str:
    """Return a line of text, escaped."""
    return element("text", {"x": x, "y": y, "text-anchor": anchor, "class": css_class}, escape(content))


def marker(x: float, y: float, style: Style, title: str | None = None) -> str:
    """Return the marker of a series at a place, with a tooltip."""
    tooltip = [] if title is None else [element("title", {}, escape(title))]
    shape = {
        "class": f"mark {style.css_class}" + " hollow" * style.hollow,
        "d": style.outline,
        "transform": f"translate({x} {y})",
    }
    return element("path", shape, *tooltip)


def drawing(label: str, content: Sequence[str], *, width: float = WIDTH, height: float = HEIGHT) -> str:
    """Return a whole drawing; ``label`` is what a screen reader says in its place."""
    box = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label}
    return element("svg", box, *content)
