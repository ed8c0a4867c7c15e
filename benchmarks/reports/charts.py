"""The charts of the HTML report: lines with intervals, and points with a Pareto front."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from rexport.benchmarks.reports.table import number
from rexport.pages.drawing import COLOURS, INCH, SERIES, TOOLTIP, inline, look, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.path import Path

__all__ = [
    "Dot",
    "Point",
    "Scale",
    "Style",
    "line_chart",
    "linear_scale",
    "log_scale",
    "pareto_front",
    "scatter_chart",
    "swatch",
]

# in points of the drawing, at which letters are readable both on a phone and beside another chart
_WIDTH, _HEIGHT = 440, 300
_MARKERS = "os^DvP<>"
_DASHES = ("-", (0, (6, 4)), (0, (2, 3)), (0, (9, 3, 2, 3)))
_INTERVAL: dict[str, Any] = {"linewidth": 1.2, "marker": "_", "markersize": 6, "markeredgewidth": 1.2}
# where a name may stand: its distance from the dot, and which of its ends is there
_PLACES = [(9, 0, "left"), (-9, 0, "right"), (0, 12, "center"), (0, -12, "center")]
_PLACES += [(7, 10, "left"), (-7, 10, "right"), (7, -10, "left"), (-7, -10, "right")]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a series looks: colour and marker by ``model``, dashes and hollow markers by ``variant`` (its runtime).

    No two of the first 32 look the same without their colours.
    """

    model: int
    variant: int

    @property
    def colour(self) -> str:
        """The name of the page's variable."""
        return SERIES[self.model % len(SERIES)]

    @property
    def hollow(self) -> bool:
        """Whether its markers are outlines only."""
        return self.variant % 2 == 1

    @property
    def line(self) -> dict[str, Any]:
        """Its line, for Matplotlib."""
        return {"color": COLOURS[self.colour], "linestyle": _DASHES[self.variant % len(_DASHES)]}

    @property
    def marks(self) -> dict[str, Any]:
        """Its markers, for Matplotlib."""
        shape = _MARKERS[(self.model + self.model // len(SERIES)) % len(_MARKERS)]
        fill = COLOURS["page" if self.hollow else self.colour]
        return {"color": COLOURS[self.colour], "linestyle": "", "marker": shape, "markerfacecolor": fill}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from the first of its ``ticks`` to the last; ``written`` says what stands beside them."""

    label: str
    ticks: Sequence[float]
    kind: Literal["linear", "log"] = "linear"
    written: Callable[[float], str] = number


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of a series, with its interval and what its tooltip says."""

    x: float
    y: float
    interval: tuple[float, float] | None
    tooltip: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of a scatter chart; the front goes through those that ``counts``."""

    x: float
    y: float
    label: str
    style: Style
    tooltip: str
    counts: bool = True


def linear_scale(label: str, values: Sequence[float], *, zero: bool = True) -> Scale:
    """Return a scale with round ticks that hold all values, and zero if that is wanted."""
    ends = [*values, 0.0] if zero else values
    low, high = min(ends), max(ends)
    if high - low <= 1e-9 * max(-low, high):  # one value: an axis around it
        around = abs(high) / 10 or 1.0
        low, high = low - around, high + around
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return Scale(label=label, ticks=_holding(ticks, low, high))


def log_scale(label: str, values: Sequence[float]) -> Scale:
    """Return a logarithmic scale that holds all values, which are above zero.

    Ticks are at 1, 2 and 5 times powers of ten, or at the powers alone over more than three of them.
    """
    low, high = min(values), max(values)
    mantissas = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0)
    ticks = LogLocator(subs=mantissas, numticks=12).tick_values(low / 10, high * 10)
    return Scale(label=label, ticks=_holding(ticks, low, high), kind="log")


def line_chart(label: str, lines: Mapping[Style, Sequence[Point]], *, x: Scale, y: Scale) -> str:
    """Return lines over a common axis, with a bar for every interval; ``label`` is what a screen reader says."""
    with look():
        figure, axes = _axes(x, y)
        for style, points in lines.items():
            axes.plot([point.x for point in points], [point.y for point in points], **style.line)
            for point in points:
                if point.interval is not None:
                    axes.plot([point.x] * 2, point.interval, color=COLOURS[style.colour], **_INTERVAL)
                _mark(axes, point, style)
        return inline(figure, label)


def scatter_chart(label: str, dots: Sequence[Dot], *, x: Scale, y: Scale) -> str:
    """Return dots, the front of those that are best, and names where there is room for them."""
    with look():
        figure, axes = _axes(x, y)
        front = pareto_front(dots)
        (steps,) = axes.step(
            [*(dot.x for dot in (*front[:1], *front)), x.ticks[-1]],
            [y.ticks[0], *(dot.y for dot in (*front, *front[-1:]))],
            where="post",
            color=COLOURS["quiet"],
            linewidth=1.5,
            linestyle=(0, (5, 3)),
        )
        occupied = [
            Bbox.from_bounds(x0 - 6, y0 - 6, 12, 12)
            for x0, y0 in axes.transData.transform([(dot.x, dot.y) for dot in dots])
        ]
        for dot in sorted(dots, key=lambda dot: (dot not in front, dot.x)):
            _mark(axes, dot, dot.style)
            _name(axes, dot, occupied, steps.get_path().transformed(axes.transData))
        return inline(figure, label)


def pareto_front(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """Return the dots that no other is left of and above: at most as far right, at least as high, and not the same."""
    front: list[Dot] = []
    for dot in sorted((dot for dot in dots if dot.counts), key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return tuple(front)


def swatch(style: Style) -> str:
    """Return the sample of a series in a legend."""
    with look():
        figure = Figure(figsize=(36 / INCH, 14 / INCH))
        figure.add_artist(Line2D([1 / 36, 35 / 36], [0.5, 0.5], **style.line))
        figure.add_artist(Line2D([0.5], [0.5], **style.marks))
        return inline(figure)


def _axes(x: Scale, y: Scale) -> tuple[Figure, Axes]:
    """Return a figure and empty axes in their final place; a number that would cover the one before it is left out."""
    figure = Figure(figsize=(_WIDTH / INCH, _HEIGHT / INCH), layout="constrained")
    axes = figure.add_subplot(xlabel=x.label, title=y.label)
    axes.set(xscale=x.kind, yscale=y.kind)
    axes.set(xlim=(x.ticks[0], x.ticks[-1]), ylim=(y.ticks[0], y.ticks[-1]))
    axes.set_xticks(x.ticks, [x.written(tick) for tick in x.ticks])
    axes.set_yticks(y.ticks, [y.written(tick) for tick in y.ticks])
    axes.minorticks_off()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    end = -math.inf
    for tick in axes.get_xticklabels():
        box = tick.get_window_extent()
        if box.x0 > end:
            end = box.x1 + 4
        else:
            tick.set_visible(False)
    return figure, axes


def _mark(axes: Axes, point: Point | Dot, style: Style) -> None:
    axes.plot([point.x], [point.y], gid=TOOLTIP + printable(point.tooltip), **style.marks)


def _name(axes: Axes, dot: Dot, occupied: list[Bbox], front: Path) -> None:
    """Write the dot's name at the first place around it where it covers nothing, or nowhere."""
    area = Bbox.from_extents(axes.bbox.x0, axes.bbox.y0, _WIDTH, axes.bbox.y1 + 12)
    for right, up, end in _PLACES:
        text = axes.annotate(
            printable(dot.label), (dot.x, dot.y), (right, up), textcoords="offset points", ha=end, va="center"
        )
        box = text.get_window_extent()
        inside = area.contains(*box.min) and area.contains(*box.max)
        if inside and not box.count_overlaps(occupied) and not front.intersects_bbox(box, filled=False):
            occupied.append(box)
            return
        text.remove()


def _holding(ticks: Sequence[float], low: float, high: float) -> list[float]:
    """Return the ticks from the last that is not above ``low`` to the first that is not below ``high``, two or more."""
    first = max(bisect_right(ticks, low) - 1, 0)
    last = max(bisect_left(ticks, high), first + 1)
    return [float(tick) for tick in ticks[first : last + 1]]
