"""From a document's rows to the charts of the page, and to what its bars show."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport.benchmarks.reports.charts import (
    Dot,
    Point,
    Scale,
    Style,
    line_chart,
    linear_scale,
    log_scale,
    scatter_chart,
)
from rexport.benchmarks.reports.noise import throughput_interval
from rexport.benchmarks.reports.table import number
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rexport.benchmarks.document import BenchResult, Row
    from rexport.benchmarks.profiling.profiled import ProfiledLayer

__all__ = ["Figure", "Legend", "curves", "nearest_peak", "operators", "pareto"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart and what stands above and below it; ``svg`` is markup."""

    title: str
    caption: str
    svg: str


class Legend:
    """The series of a document: a model on a runtime, at its threads and in its scenario."""

    def __init__(self, document: BenchResult) -> None:
        rows = document.measured
        self._files = document.file_names
        self._models = list(dict.fromkeys(row.model for row in rows))
        self._variants = list(dict.fromkeys((row.runtime, row.threads, row.scenario) for row in rows))
        self._several_threads = len({row.threads for row in rows}) > 1

    def style(self, row: Row) -> Style:
        """Return how the series of ``row`` looks."""
        variant = self._variants.index((row.runtime, row.threads, row.scenario))
        return Style(model=self._models.index(row.model), variant=variant)

    def label(self, row: Row) -> str:
        """Return what the series of ``row`` is called."""
        threads = f", {row.threads} threads" if self._several_threads else ""
        scenario = "" if row.scenario in (None, Scenario.SINGLE_STREAM) else f", {row.scenario}"
        return f"{self._files[row.model]} on {row.runtime}{threads}{scenario}"

    def short_label(self, row: Row) -> str:
        """Return it without what all have in common."""
        name = self._files[row.model].removesuffix(".onnx")
        return name if len(self._variants) == 1 else f"{name}, {row.runtime}"

    def series(self, rows: Iterable[Row]) -> dict[Style, list[Row]]:
        """Return the rows of each series, by how it looks."""
        groups: dict[Style, list[Row]] = {}
        for row in rows:
            groups.setdefault(self.style(row), []).append(row)
        return groups


def curves(document: BenchResult, names: Legend) -> tuple[Figure, ...]:
    """Return throughput and latency over batch size; nothing where only one batch size was measured."""
    rows = [row for row in document.measured if row.images_per_second and row.scenario is not Scenario.SERVER]
    series = names.series(sorted(rows, key=lambda row: row.batch))
    batches = sorted({row.batch for row in rows})
    if len(batches) < 2:
        return ()
    over, x = f"over batch sizes {batches[0]} to {batches[-1]}", Scale(label="batch size", ticks=batches, kind="log")
    throughput, latency = (
        {style: [point(row) for row in rows] for style, rows in series.items()} for point in (_throughput, _latency)
    )
    y, log_y = linear_scale("images per second", _ends(throughput)), log_scale("ms per call", _ends(latency))
    return (
        Figure(
            title="Throughput",
            caption="Images per second at the median call; the bars are 95 % intervals.",
            svg=line_chart(f"Images per second {over}", throughput, x=x, y=y),
        ),
        Figure(
            title="Latency",
            caption="Milliseconds of the median call, on a logarithmic axis.",
            svg=line_chart(f"Milliseconds of a call {over}", latency, x=x, y=log_y),
        ),
    )


def pareto(document: BenchResult, names: Legend) -> tuple[Figure, ...]:
    """Return accuracy against latency at the smallest batch size; nothing where no accuracy is known.

    Accuracy is the first of top-1, SQNR and agreement that at least two rows have.
    """
    measured = [row for row in document.measured if row.latency_ms.p50 and row.scenario is not Scenario.SERVER]
    batch = min((row.batch for row in measured), default=0)
    rows = [row for row in measured if row.batch == batch]
    if sum(row.top1 is not None for row in rows) > 1:
        return (_scatter(rows, names, [row.top1 for row in rows], "top-1", _per_cent),)
    if any(row.sqnr_db is not None for row in rows):
        # the first model is what the others are compared with: it has no noise
        values = [math.inf if row.sqnr_db is None and row.agreement == 1 else row.sqnr_db for row in rows]
        on_what = " on drawn pictures" if document.drawn_pictures else ""
        return (_scatter(rows, names, values, f"SQNR in dB{on_what}"),)
    if sum(row.agreement is not None for row in rows) > 1:
        values = [row.agreement for row in rows]
        return (_scatter(rows, names, values, "agreement with the first model", _per_cent),)
    return ()


def nearest_peak(document: BenchResult, names: Legend) -> tuple[Row, ...]:
    """Return of each series the row that comes nearest to the machine's peak, where that is known."""
    rows = (row for row in document.measured if row.share_of_peak)
    return tuple(max(group, key=lambda row: row.share_of_peak or 0.0) for group in names.series(rows).values())


def operators(layers: Iterable[ProfiledLayer]) -> str:
    """Return the share of each operator in a sentence, the largest first."""
    shares: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        shares[layer.op_type or "other"] += layer.share
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{operator} {100 * share:.1f} %" for operator, share in ordered)


def _throughput(row: Row) -> Point:
    interval = row.images_per_second_interval or throughput_interval(row)
    value = row.images_per_second or 0.0
    return Point(x=row.batch, y=value, interval=interval, tooltip=_tooltip(row, f"{number(value)} img/s", interval))


def _latency(row: Row) -> Point:
    low, high = _throughput(row).interval or (0.0, 0.0)
    interval = (row.batch * 1e3 / high, row.batch * 1e3 / low) if low > 0 else None
    value = row.latency_ms.p50 or row.batch * 1e3 / (row.images_per_second or 1.0)
    return Point(x=row.batch, y=value, interval=interval, tooltip=_tooltip(row, f"{number(value)} ms", interval))


def _tooltip(row: Row, value: str, interval: tuple[float, float] | None = None) -> str:
    ends = f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
    return f"{row.model} on {row.runtime}, batch {row.batch}: {value}{ends}"


def _ends(lines: dict[Style, list[Point]]) -> list[float]:
    """Return all values and the ends of their intervals."""
    return [value for points in lines.values() for point in points for value in (point.y, *(point.interval or ()))]


def _per_cent(fraction: float) -> str:
    return f"{100 * fraction:.4g} %"


def _scatter(
    rows: Sequence[Row],
    names: Legend,
    values: Sequence[float | None],
    accuracy: str,
    written: Callable[[float], str] = number,
) -> Figure:
    """Return the chart of the rows that have a value; an infinite one stands above the others."""
    finite = [value for value in values if value is not None and value < math.inf] or [0.0]
    room = (max(finite) - min(finite)) / 8  # for the name below the lowest dot
    y = linear_scale(accuracy, [min(finite) - room, *finite], zero=False)
    top = y.ticks[-1] + (y.ticks[-1] - y.ticks[-2]) / 2

    def say(value: float) -> str:
        return "∞" if value >= top else written(value)

    y, exact = replace(y, written=say), ""
    if math.inf in values:
        y, exact = replace(y, ticks=[*y.ticks, top]), "the first model is exact by definition (∞); "
    dots = []
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            x, wrong = row.latency_ms.p50 or 0.0, ", wrong outputs" if row.wrong else ""
            tooltip = _tooltip(row, f"{number(x)} ms, {accuracy} {say(value)}{wrong}")
            label, style = names.short_label(row), names.style(row)
            dots.append(Dot(x=x, y=min(value, top), label=label, style=style, tooltip=tooltip, counts=not row.wrong))
    times = [dot.x for dot in dots]
    scale = log_scale if max(times) / min(times) > 20 else linear_scale
    return Figure(
        title=f"{accuracy[0].upper()}{accuracy[1:]} against latency, batch {rows[0].batch}",
        caption=f"Up and left is better; {exact}no model is both faster and more accurate than one on the line.",
        svg=scatter_chart(
            f"{accuracy} against milliseconds of a call at batch {rows[0].batch}",
            dots,
            x=scale("ms per call (median)", times),
            y=y,
        ),
    )
