from __future__ import annotations

import re
from itertools import product
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.reports.charts import (
    Dot,
    Point,
    Series,
    bar,
    line_chart,
    pareto_front,
    rounds_line,
    scatter_chart,
    times_rug,
)
from rexport.benchmarks.reports.palette import DARK, LIGHT, contrast
from rexport.benchmarks.reports.scales import linear_scale, log_scale
from rexport.benchmarks.reports.svg import HEIGHT, WIDTH, Style

STYLE = Style(model=0, variant=0)
coordinates = st.lists(st.tuples(st.floats(0.01, 1e3), st.floats(0.0, 1.0)), min_size=1, max_size=25)


def dots(places: list[tuple[float, float]]) -> list[Dot]:
    return [Dot(x=x, y=y, label=f"net{i}", style=STYLE, title="a & <b>") for i, (x, y) in enumerate(places)]


def dominates(one: Dot, other: Dot) -> bool:
    return one.x <= other.x and one.y >= other.y and (one.x, one.y) != (other.x, other.y)


@given(coordinates)
def test_the_front_is_what_nothing_dominates(places: list[tuple[float, float]]) -> None:
    every = dots(places)
    front = pareto_front(every)
    best = {(dot.x, dot.y) for dot in every if not any(dominates(other, dot) for other in every)}
    assert {(dot.x, dot.y) for dot in front} == best
    assert [dot.x for dot in front] == sorted(dot.x for dot in front)


def test_what_does_not_count_is_not_on_the_front() -> None:
    fast_but_wrong = Dot(x=1, y=1, label="wrong", style=STYLE, title="", counts=False)
    right = Dot(x=2, y=0.5, label="right", style=STYLE, title="")
    assert pareto_front([fast_but_wrong, right]) == (right,)


@given(coordinates)
def test_a_scatter_chart_is_a_drawing_within_its_box(places: list[tuple[float, float]]) -> None:
    every = dots(places)
    x, y = log_scale([dot.x for dot in every]), linear_scale([dot.y for dot in every])
    root = ElementTree.fromstring(scatter_chart("label", every, x=x, y=y, x_label="ms", y_label="top-1"))
    marks = [path for path in root.iter("path") if path.get("class", "").startswith("mark")]
    assert len(marks) == len(every)
    for mark in marks:
        px, py = map(float, re.findall(r"[-\d.]+", mark.get("transform", "")))
        assert 0 <= px <= WIDTH
        assert 0 <= py <= HEIGHT
        assert [title.text for title in mark.iter("title")] == ["a & <b>"]


@given(coordinates)
def test_names_cover_neither_dots_nor_each_other(places: list[tuple[float, float]]) -> None:
    every = dots(places)
    x, y = log_scale([dot.x for dot in every]), linear_scale([dot.y for dot in every])
    root = ElementTree.fromstring(scatter_chart("label", every, x=x, y=y, x_label="ms", y_label="top-1"))
    names = [text for text in root.iter("text") if text.get("class") == "name"]
    lines = sorted((float(text.get("y", "")), float(text.get("x", "")), text.get("text-anchor")) for text in names)
    assert len(set(lines)) == len(lines)
    if len(every) == 1:
        assert len(names) == 1


def test_a_curve_goes_through_its_points_and_their_intervals() -> None:
    points = tuple(Point(x=2.0**i, y=10.0 * i, interval=(9.0 * i, 11.0 * i), title=f"{i}") for i in range(1, 4))
    series = [
        Series(label="a", style=STYLE, points=points),
        Series(label="b", style=Style(model=1, variant=1), points=points),
    ]
    chart = line_chart("label", series, x=log_scale([2, 8]), y=linear_scale([0, 33]), x_label="batch", y_label="img/s")
    root = ElementTree.fromstring(chart)
    classes = [path.get("class", "") for path in root.iter("path")]
    assert [classes.count(name) for name in ("curve s0", "curve s1", "whisker s0", "mark s0", "mark s1 hollow")] == [
        1, 1, 3, 3, 3,
    ]  # fmt: skip
    curve = next(path for path in root.iter("path") if path.get("class") == "curve s0")
    numbers = list(map(float, re.findall(r"[-\d.]+", curve.get("d", ""))))
    assert numbers[0::2] == sorted(numbers[0::2])  # to the right
    assert numbers[1::2] == sorted(numbers[1::2], reverse=True)  # and up


def test_series_differ_without_their_colours() -> None:
    looks = {
        (style.outline, style.dash, style.hollow)
        for style in (Style(model=m, variant=v) for m, v in product(range(8), range(4)))
    }
    assert len(looks) == 32


@given(st.floats(-1, 2))
def test_a_bar_stays_on_its_track(share: float) -> None:
    root = ElementTree.fromstring(bar(share, "s0"))
    track, filled = root.iter("rect")
    assert 0 <= float(filled.get("width", "")) <= float(track.get("width", ""))


@given(st.lists(st.floats(1e-5, 10), min_size=1, max_size=2000))
def test_raw_times_stay_in_their_strip(seconds: list[float]) -> None:
    middle = sorted(seconds)[len(seconds) // 2]
    rug = ElementTree.fromstring(times_rug(seconds, middle))
    strokes = next(path for path in rug.iter("path") if path.get("class") == "strokes")
    places = [float(place) for place in re.findall(r"M([-\d.]+)", strokes.get("d", ""))]
    assert 1 <= len(places) <= 301
    assert all(0 <= place <= 220 for place in places)
    ElementTree.fromstring(rounds_line(seconds[:20], middle))


def test_colours_have_the_contrast_that_accessibility_asks_for() -> None:
    for palette in (LIGHT, DARK):
        for name, colour in palette.items():
            floor = 4.5 if name in ("text", "quiet", "good", "bad", "caution") else 3.0
            if name not in ("page", "panel", "line"):
                assert contrast(colour, palette["page"]) >= floor, name
                assert contrast(colour, palette["panel"]) >= floor, name
    assert contrast("#ffffff", "#ffffff") == 1.0
