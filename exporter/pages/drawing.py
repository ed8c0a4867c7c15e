"""Drawings by Matplotlib as markup for a page.

They are paths and texts alone, without ids, links or styles, so that many stand in one page and its policy allows them.
Fonts and colours are the page's, by CSS variables: one drawing serves light, dark and paper.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from matplotlib import style as styles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INCH", "SERIES", "TOOLTIP", "inline", "look", "printable"]

INCH = 72
"""Points."""
SERIES = [f"s{i}" for i in range(8)]
# Matplotlib has no variables: it draws with colours that nothing else has, and they are replaced
_NAMES = ["page", "panel", "line", "text", "quiet", "hit", "miss", *SERIES]
COLOURS = {name: f"#c0ff{i:02x}" for i, name in enumerate(_NAMES)}
_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_LOOK = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.dpi": INCH,
    **dict.fromkeys(["figure.facecolor", "axes.facecolor"], "none"),
    **dict.fromkeys(["font.size", "axes.titlesize"], 11),  # as in page.css
    **dict.fromkeys(["text.color", "axes.labelcolor"], COLOURS["text"]),
    **dict.fromkeys(["axes.edgecolor", "xtick.color", "ytick.color"], COLOURS["quiet"]),
    **dict.fromkeys(["axes.spines.left", "axes.spines.right", "axes.spines.top"], False),
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOURS["line"],
    "xtick.major.size": 5,
    "ytick.major.size": 0,
    "ytick.major.pad": 12,  # room for the markers of the first values
    "lines.linewidth": 2,
    "lines.markersize": 8.5,
    "lines.markeredgewidth": 1.6,
    "lines.scale_dashes": False,
}
TOOLTIP = "tooltip: "  # begins the ids of groups that have one
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_KEPT = {"d", "x", "y", "transform", "fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "text-anchor"}


@contextmanager
def look() -> Iterator[None]:
    """Draw as the page wants it, whatever the user's settings of Matplotlib say."""
    with styles.context(_LOOK, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts may have it
        yield


def printable(text: str) -> str:
    """Return text that XML can have."""
    return "".join(character if character.isprintable() else " " for character in text)


def inline(figure: Figure, label: str | None = None) -> str:
    """Return the figure as markup for a page; one without a label is none of a screen reader's business.

    The page's policy forbids style attributes, so they become attributes of their own, without the font; markers stand
    where they are used, for an id may be in the page only once.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    markers = {f"#{path.get('id')}": path.get("d", "") for path in root.iter(f"{_SVG}path")}
    for use in root.iter(f"{_SVG}use"):
        place = f"translate({use.attrib.pop('x')} {use.attrib.pop('y')})"
        use.tag, use.attrib = f"{_SVG}path", {**use.attrib, "d": markers[use.attrib[_HREF]], "transform": place}
    about = {"aria-hidden": "true"} if label is None else {"role": "img", "aria-label": label}
    drawing = ElementTree.Element("svg", {"viewBox": root.get("viewBox", ""), **about})
    tooltip = ""
    for node in root.iter():
        name, tag = node.get("id"), node.tag.removeprefix(_SVG)
        if tag == "g" and name is not None:
            tooltip = name.partition(TOOLTIP)[2]
        elif tag in ("path", "text") and name is None:
            rules = dict(rule.split(": ") for rule in node.attrib["style"].split("; "))
            attributes = {
                key: _VARIABLES.get(value, value) for key, value in (node.attrib | rules).items() if key in _KEPT
            }
            shape = ElementTree.SubElement(drawing, tag, attributes)
            shape.text = node.text
            if tooltip:
                ElementTree.SubElement(shape, "title").text = tooltip
    return ElementTree.tostring(drawing, encoding="unicode")
