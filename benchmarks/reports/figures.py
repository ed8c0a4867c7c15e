"""From a document's rows to its charts: which rows make a series, and which accuracy stands against latency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rexport.benchmarks.reports.charts import (
    Dot,
    Point,
    Series,
    bar,
    line_chart,
    rounds_line,
    scatter_chart,
    swatch,
    times_rug,
)
from rexport.benchmarks.reports.document import short_names
from rexport.benchmarks.reports.noise import throughput_interval
from rexport.benchmarks.reports.scales import Scale, linear_scale, log_scale, number, three_digits
from rexport.benchmarks.reports.svg import Style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks.reports.document import Document, LayerProfile, ReportRow

__all__ = [
    "BarRow",
    "Figure",
    "LayerTable",
    "Legend",
    "LegendEntry",
    "SpreadRow",
    "curves",
    "layer_tables",
    "legend",
    "pareto",
    "peak_bars",
    "spread",
]

_SHOWN_LAYERS = 15
_ROOM_ABOVE = 1.0  # dB, for the reference's line


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart and what stands above and below it; ``svg`` is markup."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A series' sample, which is markup, and its name."""

    svg: str
    label: str


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """A bar, which is markup, its name, and the numbers beside it, in words."""

    label: str
    svg: str
    value: str
    more: str


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A layer of the table of layers; ``svg`` is its bar, markup."""

    name: str
    op_type: str
    precision: str
    svg: str
    share: str
    milliseconds: str
    gmacs_per_second: str
    advice: str | None


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The slowest layers of a model, and the share of each operator in a sentence."""

    title: str
    rows: tuple[LayerRow, ...]
    operators: str


@dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """The raw times of a row: a stroke for each, and the medians of the rounds; both are markup."""

    label: str
    rug: str
    rounds: str
    calls: str
    slowest: str
    load: str
    first_call: str


class Legend:
    """The series of a document: a model on a runtime, at its threads and in its scenario."""

    def __init__(self, document: Document) -> None:
        rows = document.measured
        self._files = short_names(dict.fromkeys(row.model for row in document.rows))
        self._models = {model: i for i, model in enumerate(dict.fromkeys(row.model for row in rows))}
        variants = dict.fromkeys((row.runtime, row.threads, row.scenario) for row in rows)
        self._variants = {variant: i for i, variant in enumerate(variants)}
        self._several_threads = len({row.threads for row in rows}) > 1

    def style(self, row: ReportRow) -> Style:
        """Return how the series of ``row`` looks."""
        variant = self._variants[row.runtime, row.threads, row.scenario]
        return Style(model=self._models[row.model], variant=variant)

    def label(self, row: ReportRow) -> str:
        """Return what the series of ``row`` is called."""
        threads = f", {row.threads} threads" if self._several_threads else ""
        scenario = "" if row.scenario == "single-stream" else f", {row.scenario}"
        return f"{self._files[row.model]} on {row.runtime}{threads}{scenario}"

    def short_label(self, row: ReportRow) -> str:
        """Return it without what all have in common."""
        name = self._files[row.model].removesuffix(".onnx")
        return name if len(self._variants) == 1 else f"{name}, {row.runtime}"


def legend(document: Document, names: Legend) -> tuple[LegendEntry, ...]:
    """Return an entry for each series, in the order of the rows."""
    first = {names.label(row): row for row in reversed(document.measured)}
    ordered = dict.fromkeys(names.label(row) for row in document.measured)
    return tuple(LegendEntry(svg=swatch(names.style(first[label])), label=label) for label in ordered)


def curves(document: Document, names: Legend) -> tuple[Figure, ...]:
    """Return throughput and latency over batch size; nothing where only one batch size was measured."""
    rows = [row for row in document.measured if row.images_per_second and row.scenario != "server"]
    batches = sorted({row.batch for row in rows})
    if len(batches) < 2:
        return ()
    x = Scale(low=batches[0], high=batches[-1], ticks=tuple(map(float, batches)), log=True)
    groups: dict[str, list[ReportRow]] = {}
    for row in sorted(rows, key=lambda row: row.batch):
        groups.setdefault(names.label(row), []).append(row)
    ordered = {label: groups[label] for label in dict.fromkeys(names.label(row) for row in rows)}
    throughput = [
        Series(label=label, style=names.style(group[0]), points=tuple(_throughput(row) for row in group))
        for label, group in ordered.items()
    ]
    latency = [
        Series(label=label, style=names.style(group[0]), points=tuple(_latency(row) for row in group))
        for label, group in ordered.items()
    ]
    return (
        Figure(
            title="Throughput",
            caption="Images per second at the median call; the bars are 95 % intervals.",
            svg=line_chart(
                f"Images per second over batch sizes {batches[0]} to {batches[-1]}",
                throughput,
                x=x,
                y=linear_scale(_reach(throughput)),
                x_label="batch size",
                y_label="images per second",
            ),
        ),
        Figure(
            title="Latency",
            caption="Milliseconds of the median call, on a logarithmic axis.",
            svg=line_chart(
                f"Milliseconds of a call over batch sizes {batches[0]} to {batches[-1]}",
                latency,
                x=x,
                y=log_scale(_reach(latency)),
                x_label="batch size",
                y_label="ms per call",
            ),
        ),
    )


def pareto(document: Document, names: Legend) -> Figure | None:
    """Return accuracy against latency at the smallest batch size; ``None`` where no accuracy is known.

    Accuracy is the first of top-1, SQNR and agreement that at least two rows have.
    """
    measured = [row for row in document.measured if row.p50_ms and row.scenario != "server"]
    batch = min((row.batch for row in measured), default=0)
    rows = [row for row in measured if row.batch == batch]
    if sum(row.top1 is not None for row in rows) > 1:
        return _scatter(rows, names, [row.top1 for row in rows], "top-1", percent=True)
    if any(row.sqnr_db is not None for row in rows):
        known = [row.sqnr_db for row in rows if row.sqnr_db is not None]
        top = linear_scale(known, zero=False).high + _ROOM_ABOVE
        # the first model is what the others are compared with: it has no noise
        values = [top if row.sqnr_db is None and row.agreement == 1 else row.sqnr_db for row in rows]
        return _scatter(rows, names, values, "SQNR in dB", reference=top)
    if sum(row.agreement is not None for row in rows) > 1:
        return _scatter(rows, names, [row.agreement for row in rows], "agreement with the first model", percent=True)
    return None


def peak_bars(document: Document, names: Legend) -> tuple[BarRow, ...]:
    """Return a bar for each series: its share of the machine's peak at the batch size where that is largest."""
    nearest: dict[str, ReportRow] = {}
    for row in document.measured:
        label = names.label(row)
        if (row.share_of_peak or 0.0) > (nearest[label].share_of_peak or 0.0 if label in nearest else 0.0):
            nearest[label] = row
    return tuple(
        BarRow(
            label=f"{label}, batch {row.batch}",
            svg=bar(row.share_of_peak or 0.0, names.style(row).css_class, hollow=names.style(row).hollow),
            value=f"{100 * (row.share_of_peak or 0.0):.0f} %",
            more="" if row.gmacs_per_second is None else three_digits(row.gmacs_per_second),
        )
        for label, row in nearest.items()
    )


def layer_tables(document: Document, names: dict[str, str]) -> tuple[LayerTable, ...]:
    """Return the slowest layers of each profile, with the rest in one row."""
    return tuple(
        LayerTable(
            title=f"{names.get(profile.model, profile.model)} on {profile.runtime}, batch {profile.batch}",
            rows=_layer_rows(profile),
            operators=_operators(profile),
        )
        for profile in document.layers
        if profile.layers
    )


def spread(document: Document, names: Legend) -> tuple[SpreadRow, ...]:
    """Return the raw times of each row that has some."""
    rows = []
    for row in document.measured:
        if row.rounds:
            middle = median(row.seconds)
            rows.append(
                SpreadRow(
                    label=f"{names.label(row)}, batch {row.batch}",
                    rug=times_rug(row.seconds, middle),
                    rounds=rounds_line([median(block) for block in row.rounds], middle),
                    calls=f"{len(row.seconds):,}",
                    slowest=f"{max(row.seconds) / middle:.2f} ×",
                    load="–" if row.load_seconds is None else three_digits(row.load_seconds * 1e3),
                    first_call="–" if row.first_call_seconds is None else three_digits(row.first_call_seconds * 1e3),
                )
            )
    return tuple(rows)


def _interval(row: ReportRow) -> tuple[float, float] | None:
    return row.images_per_second_interval or throughput_interval(row)


def _throughput(row: ReportRow) -> Point:
    interval = _interval(row)
    value = row.images_per_second or 0.0
    return Point(x=row.batch, y=value, interval=interval, title=_tooltip(row, f"{number(value)} img/s", interval))


def _latency(row: ReportRow) -> Point:
    ends = _interval(row)
    interval = None if ends is None or ends[0] <= 0 else (row.batch * 1e3 / ends[1], row.batch * 1e3 / ends[0])
    value = row.p50_ms or row.batch * 1e3 / (row.images_per_second or 1.0)
    return Point(x=row.batch, y=value, interval=interval, title=_tooltip(row, f"{number(value)} ms", interval))


def _tooltip(row: ReportRow, value: str, interval: tuple[float, float] | None) -> str:
    ends = "" if interval is None else f" ({number(interval[0])} to {number(interval[1])})"
    return f"{row.model} on {row.runtime}, batch {row.batch}: {value}{ends}"


def _reach(series: Sequence[Series]) -> list[float]:
    points = [point for one in series for point in one.points]
    return [value for point in points for value in (point.y, *(point.interval or ()))]


def _scatter(
    rows: Sequence[ReportRow],
    names: Legend,
    values: Sequence[float | None],
    what: str,
    *,
    percent: bool = False,
    reference: float | None = None,
) -> Figure:
    """Return the chart of the rows that have a value; at ``reference`` stands what the others are compared with."""

    def written(value: float) -> str:
        if reference is not None and value >= reference:
            return "∞"
        return f"{100 * value:.4g} %" if percent else number(value)

    dots = [
        Dot(
            x=row.p50_ms or 0.0,
            y=value,
            label=names.short_label(row),
            style=names.style(row),
            title=_tooltip(row, f"{number(row.p50_ms or 0.0)} ms, {what} {written(value)}", None)
            + (", wrong outputs" if row.wrong else ""),
            counts=not row.wrong,
        )
        for row, value in zip(rows, values, strict=True)
        if value is not None
    ]
    known = [dot.y for dot in dots if reference is None or dot.y < reference] or [0.0]
    room = (max(known) - min(known)) / 8  # for the name below the lowest dot
    y = linear_scale([min(known) - room, *known], zero=False)
    if reference is not None:
        y = Scale(low=y.low, high=reference, ticks=(*y.ticks, reference))
    left = [dot.x for dot in dots]
    wide = max(left) / min(left) > 20
    reached = "the first model is exact by definition (∞); " if reference is not None else ""
    return Figure(
        title=f"{what[0].upper()}{what[1:]} against latency, batch {rows[0].batch}",
        caption=f"Up and left is better; {reached}no model is both faster and more accurate than one on the line.",
        svg=scatter_chart(
            f"{what} against milliseconds of a call at batch {rows[0].batch}",
            dots,
            x=log_scale(left) if wide else linear_scale(left),
            y=y,
            x_label="ms per call (median)",
            y_label=what,
            y_tick=written,
        ),
    )


def _layer_rows(profile: LayerProfile) -> tuple[LayerRow, ...]:
    ordered = sorted(profile.layers, key=lambda layer: -layer.share)
    largest = max(layer.share for layer in ordered) or 1.0
    shown, rest = ordered[:_SHOWN_LAYERS], ordered[_SHOWN_LAYERS:]
    rows = [
        LayerRow(
            name=layer.name,
            op_type=layer.op_type or "",
            precision=layer.precision or "",
            svg=bar(layer.share / largest, "s0", hollow="int" not in (layer.precision or "").lower()),
            share=f"{100 * layer.share:.1f} %",
            milliseconds="" if layer.seconds is None else three_digits(layer.seconds * 1e3),
            gmacs_per_second="" if layer.gmacs_per_second is None else three_digits(layer.gmacs_per_second),
            advice=layer.advice,
        )
        for layer in [*shown, *(layer for layer in rest if layer.advice)]
    ]
    quiet = [layer for layer in rest if not layer.advice]
    if quiet:
        share = math.fsum(layer.share for layer in quiet)
        rows.append(
            LayerRow(
                name=f"{len(quiet)} more",
                op_type="",
                precision="",
                svg="",
                share=f"{100 * share:.1f} %",
                milliseconds=three_digits(math.fsum(layer.seconds or 0.0 for layer in quiet) * 1e3),
                gmacs_per_second="",
                advice=None,
            )
        )
    return tuple(rows)


def _operators(profile: LayerProfile) -> str:
    shares: dict[str, float] = {}
    for layer in profile.layers:
        name = layer.op_type or "other"
        shares[name] = shares.get(name, 0.0) + layer.share
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in ordered)
