"""The charts of the HTML report: lines with intervals, points with a Pareto front, bars, and raw times."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.benchmarks.reports.scales import number
from rexport.benchmarks.reports.svg import HEIGHT, WIDTH, Frame, Style, drawing, element, marker, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rexport.benchmarks.reports.scales import Scale

__all__ = [
    "Dot",
    "Point",
    "Series",
    "bar",
    "line_chart",
    "pareto_front",
    "rounds_line",
    "scatter_chart",
    "swatch",
    "times_rug",
]

_LETTER = 5.9  # the width of a letter in labels, about
_LINE = 13.0  # the height of a label
# raw times are drawn between these, in medians; what lies beyond stands at the end
_RUG_LOW, _RUG_HIGH = 0.8, 1.4
_RUG_WIDTH, _RUG_HEIGHT = 220, 18
_RUG_TICKS = 300


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of a series, with its interval and what its tooltip says."""

    x: float
    y: float
    interval: tuple[float, float] | None
    title: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together, from left to right."""

    label: str
    style: Style
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of a scatter chart; the front goes through those that ``counts``."""

    x: float
    y: float
    label: str
    style: Style
    title: str
    counts: bool = True


def line_chart(label: str, series: Sequence[Series], *, x: Scale, y: Scale, x_label: str, y_label: str) -> str:
    """Return lines over a common axis, with a bar for every interval."""
    frame = Frame(x=x, y=y)
    parts = [frame.drawn(x_label, y_label)]
    for one in series:
        places = [frame.at(point.x, point.y) for point in one.points]
        steps = " ".join(f"{px} {py}" for px, py in places)
        line = {"class": f"curve {one.style.css_class}", "d": f"M{steps}", "stroke-dasharray": one.style.dash}
        parts.append(element("path", line))
        for point in one.points:
            if point.interval is not None:
                (px, low), (_, high) = (frame.at(point.x, end) for end in point.interval)
                whisker = f"M{px - 3} {low}h6M{px} {low}V{high}M{px - 3} {high}h6"
                parts.append(element("path", {"class": f"whisker {one.style.css_class}", "d": whisker}))
        parts += [marker(px, py, one.style, point.title) for (px, py), point in zip(places, one.points, strict=True)]
    return drawing(label, parts)


def scatter_chart(
    label: str,
    dots: Sequence[Dot],
    *,
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    y_tick: Callable[[float], str] = number,
) -> str:
    """Return dots, the front of those that are best, and names where there is room for them."""
    frame = Frame(x=x, y=y)
    front = pareto_front(dots)
    parts = [frame.drawn(x_label, y_label, y_tick=y_tick)]
    places = [frame.at(dot.x, dot.y) for dot in dots]
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    if front:
        corners = _corners([frame.at(dot.x, dot.y) for dot in front], floor=frame.at(x.low, y.low)[1])
        steps = "L".join(f"{px} {py}" for px, py in corners)
        parts.append(element("path", {"class": "front", "d": f"M{steps}"}))
        taken += [_box(one, other) for one, other in itertools.pairwise(corners)]
    for (px, py), dot in sorted(zip(places, dots, strict=True), key=lambda both: (both[1] not in front, both[1].x)):
        parts.append(marker(px, py, dot.style, dot.title))
        parts += _name(px, py, dot.label, taken)
    return drawing(label, parts)


def pareto_front(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """Return the dots that no other is left of and above: at most as far right, at least as high, and not the same."""
    front: list[Dot] = []
    for dot in sorted((dot for dot in dots if dot.counts), key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return tuple(front)


def bar(share: float, css_class: str, *, hollow: bool = False) -> str:
    """Return a bar that fills ``share`` (0…1) of its track."""
    length = round(100 * min(1.0, max(0.0, share)), 2)
    track = element("rect", {"class": "track", "width": 100, "height": 10})
    kind = f"bar {css_class}" + " hollow" * hollow
    filled = element("rect", {"class": kind, "x": 0.5, "y": 0.5, "width": max(0.0, length - 1), "height": 9})
    box = {"viewBox": "0 0 100 10", "class": "bars", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return element("svg", box, track, filled)


def times_rug(seconds: Sequence[float], median: float) -> str:
    """Return a stroke for each call, or for 300 of them evenly over their order, from 0.8 to 1.4 medians."""
    ordered = sorted(seconds)
    step = max(1.0, len(ordered) / _RUG_TICKS)
    chosen = {ordered[min(len(ordered) - 1, round(i * step))] for i in range(round(len(ordered) / step))}
    strokes = "".join(f"M{place} 2v14" for place in sorted({_along(value / median) for value in chosen}))
    middle = f"M{_along(1.0)} 0v{_RUG_HEIGHT}"
    return element(
        "svg",
        {"viewBox": f"0 0 {_RUG_WIDTH} {_RUG_HEIGHT}", "class": "rug", "aria-hidden": "true"},
        element("path", {"class": "axis", "d": f"M0 {_RUG_HEIGHT - 1}H{_RUG_WIDTH}"}),
        element("path", {"class": "strokes", "d": strokes}),
        element("path", {"class": "middle", "d": middle}),
    )


def rounds_line(medians: Sequence[float], median: float) -> str:
    """Return the medians of the rounds as a line, in the order they were measured; up is slower."""
    width, height = 100.0, 24.0
    across = width / max(1, len(medians) - 1)
    share = [min(1.0, max(0.0, (value / median - _RUG_LOW) / (_RUG_HIGH - _RUG_LOW))) for value in medians]
    places = [f"{round(i * across, 1)} {round(height - 1 - (height - 2) * s, 1)}" for i, s in enumerate(share)]
    level = round(height - 1 - (height - 2) * (1 - _RUG_LOW) / (_RUG_HIGH - _RUG_LOW), 1)
    return element(
        "svg",
        {"viewBox": f"0 0 {width:g} {height:g}", "class": "rounds", "aria-hidden": "true"},
        element("path", {"class": "grid", "d": f"M0 {level}H{width:g}"}),
        element("path", {"class": "curve thin", "d": f"M{' '.join(places)}"}),
    )


def swatch(style: Style) -> str:
    """Return the sample of a series in a legend."""
    line = {"class": f"curve {style.css_class}", "d": "M1 7H35", "stroke-dasharray": style.dash}
    return element(
        "svg",
        {"viewBox": "0 0 36 14", "class": "swatch", "aria-hidden": "true"},
        element("path", line),
        marker(18, 7, style),
    )


def _corners(steps: Sequence[tuple[float, float]], *, floor: float) -> list[tuple[float, float]]:
    """Return the corners of the line that rises to each step, from the axis to the right end."""
    corners = [(steps[0][0], floor)]
    for px, py in steps:
        corners += [(px, corners[-1][1]), (px, py)]
    return [*corners[1:], (WIDTH - 14.0, corners[-1][1])]


def _box(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float, float, float]:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1])


def _along(ratio: float) -> float:
    share = (ratio - _RUG_LOW) / (_RUG_HIGH - _RUG_LOW)
    return round(1 + (_RUG_WIDTH - 2) * min(1.0, max(0.0, share)), 1)


def _name(x: float, y: float, label: str, taken: list[tuple[float, float, float, float]]) -> list[str]:
    """Return the label at the first place around the dot where it covers nothing, or nothing."""
    length = _LETTER * len(label)
    for dx, dy, anchor in (
        (9, 4, "start"),
        (-9, 4, "end"),
        (0, -10, "middle"),
        (0, 19, "middle"),
        (7, -8, "start"),
        (-7, -8, "end"),
        (7, 16, "start"),
        (-7, 16, "end"),
    ):
        left = x + dx - (0 if anchor == "start" else length if anchor == "end" else length / 2)
        box = (left, y + dy - _LINE + 3, left + length, y + dy + 3)
        inside = box[0] >= 56 and box[2] <= WIDTH - 4 and box[1] >= 18 and box[3] <= HEIGHT - 48
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return [text(x + dx, y + dy, label, anchor=anchor, css_class="name")]
    return []


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
