from __future__ import annotations

import itertools
import math
import re
import warnings
from itertools import product
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="charts need it: pip install 'rexport[report]'")

import matplotlib
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport.benchmarks.reports.charts import (
    Dot,
    Point,
    Scale,
    Style,
    line_chart,
    linear_scale,
    log_scale,
    pareto_front,
    scatter_chart,
    swatch,
)
from tests.pages._palette import DARK, LIGHT, contrast

STYLE = Style(model=0, variant=0)
coordinates = st.lists(
    st.tuples(st.floats(0.01, 1e3), st.integers(0, 10**6).map(lambda y: y / 10**6)), min_size=1, max_size=25
)
# times, rates and shares: nothing that is measured is smaller or larger
positive = st.floats(1e-6, 1e9)
values = st.lists(st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9), min_size=1, max_size=20)
positives = st.lists(positive, min_size=1, max_size=20)


def dots(places: list[tuple[float, float]]) -> list[Dot]:
    return [Dot(x=x, y=y, label=f"net{i}", style=STYLE, tooltip=f"{i}: a & <b>") for i, (x, y) in enumerate(places)]


def scatter(every: list[Dot]) -> ElementTree.Element:
    x, y = log_scale("ms", [dot.x for dot in every]), linear_scale("top-1", [dot.y for dot in every])
    return ElementTree.fromstring(scatter_chart("label", every, x=x, y=y))


def marks(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in root.iter("path") if path.find("title") is not None]


def place(mark: ElementTree.Element) -> tuple[float, float]:
    x, y = map(float, re.findall(r"[-\d.]+", mark.get("transform", "")))
    return x, y


def dominates(one: Dot, other: Dot) -> bool:
    return one.x <= other.x and one.y >= other.y and (one.x, one.y) != (other.x, other.y)


def holds(scale: Scale, numbers: list[float]) -> bool:
    near = 1e-9 * (scale.ticks[-1] - scale.ticks[0])
    return scale.ticks[0] - near <= min(numbers) and max(numbers) <= scale.ticks[-1] + near


@given(coordinates)
def test_the_front_is_what_nothing_dominates(places: list[tuple[float, float]]) -> None:
    every = dots(places)
    front = pareto_front(every)
    best = {(dot.x, dot.y) for dot in every if not any(dominates(other, dot) for other in every)}
    assert {(dot.x, dot.y) for dot in front} == best
    assert [dot.x for dot in front] == sorted(dot.x for dot in front)


def test_what_does_not_count_is_not_on_the_front() -> None:
    fast_but_wrong = Dot(x=1, y=1, label="wrong", style=STYLE, tooltip="", counts=False)
    right = Dot(x=2, y=0.5, label="right", style=STYLE, tooltip="")
    assert pareto_front([fast_but_wrong, right]) == (right,)
    scatter([fast_but_wrong])


@given(values, st.booleans())
def test_a_linear_axis_holds_every_value_between_round_ticks(numbers: list[float], zero: bool) -> None:
    scale = linear_scale("", numbers, zero=zero)
    assert holds(scale, [*numbers, *([0.0] if zero else [])])
    assert 2 <= len(scale.ticks) <= 10
    step = (scale.ticks[-1] - scale.ticks[0]) / (len(scale.ticks) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6
    for one, other in itertools.pairwise(scale.ticks):
        assert other - one == pytest.approx(step, rel=1e-6)


@given(positives)
def test_a_logarithmic_axis_holds_every_value_between_round_ticks(numbers: list[float]) -> None:
    scale = log_scale("", numbers)
    assert holds(scale, numbers)
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert 2 <= len(scale.ticks) <= 14
    for tick in scale.ticks:
        mantissa = tick / 10 ** math.floor(math.log10(tick) + 1e-9)
        assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6


def test_known_axes() -> None:
    assert linear_scale("", [12.0, 97.0]).ticks == pytest.approx([0, 20, 40, 60, 80, 100])
    assert linear_scale("", [0.915, 0.932], zero=False).ticks == pytest.approx([0.915, 0.92, 0.925, 0.93, 0.935])
    assert linear_scale("", [20.0], zero=False).ticks == pytest.approx([18, 19, 20, 21, 22])
    assert log_scale("", [0.3, 7.0]).ticks == pytest.approx([0.2, 0.5, 1, 2, 5, 10])
    assert log_scale("", [1.0]).ticks == pytest.approx([1, 2])
    assert log_scale("", [0.5, 9000.0]).ticks == pytest.approx([0.1, 1, 10, 100, 1000, 10000])


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(coordinates)
def test_dots_stand_where_their_values_are_and_names_cover_nothing(places: list[tuple[float, float]]) -> None:
    root = scatter(dots(places))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    drawn = {mark.findtext("title"): place(mark) for mark in marks(root)}
    assert set(drawn) == {f"{i}: a & <b>" for i in range(len(places))}
    assert all(0 <= x <= width and 0 <= y <= height for x, y in drawn.values())
    for (i, (x, y)), (j, (other_x, other_y)) in itertools.combinations(enumerate(places), 2):
        (left, top), (other_left, other_top) = drawn[f"{i}: a & <b>"], drawn[f"{j}: a & <b>"]
        assert (left - other_left) * (x - other_x) >= 0  # to the right
        assert (top - other_top) * (y - other_y) <= 0  # and up
    names = [text for text in root.iter("text") if (text.text or "").startswith("net")]
    boxes = []
    for name in names:
        width = 6.2 * len(name.text or "")
        left = float(name.get("x", "")) - {"start": 0, "middle": width / 2, "end": width}[name.get("text-anchor", "")]
        bottom = float(name.get("y", ""))
        boxes.append((left, bottom - 8, left + width, bottom))
    dots_taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in map(place, marks(root))]
    for box, other in [*itertools.combinations(boxes, 2), *itertools.product(boxes, dots_taken)]:
        apart = box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3]
        assert apart
    if len(places) == 1:
        assert len(names) == 1


def two_lines() -> str:
    points = [Point(x=2.0**i, y=10.0 * i, interval=(9.0 * i, 11.0 * i), tooltip=f"{i}") for i in range(1, 4)]
    lines = {STYLE: points, Style(model=1, variant=1): [*points[:2], Point(x=8, y=30, interval=None, tooltip="none")]}
    x, y = Scale(label="batch", ticks=[2, 4, 8], kind="log"), linear_scale("img/s", [0, 33])
    return line_chart("what it shows", lines, x=x, y=y)


def test_a_curve_goes_through_its_points_and_their_intervals() -> None:
    root = ElementTree.fromstring(two_lines())
    assert (root.get("role"), root.get("aria-label")) == ("img", "what it shows")
    paths = [path for path in root.iter("path") if path.get("stroke-width") == "2"]
    assert [(path.get("stroke"), path.get("stroke-dasharray")) for path in paths] == [
        ("var(--s0)", None),
        ("var(--s1)", "6,4"),
    ]
    bars = [
        path for path in root.iter("path") if path.get("stroke-width") == "1.2" and "translate" not in str(path.attrib)
    ]
    assert [path.get("stroke") for path in bars] == ["var(--s0)"] * 3 + ["var(--s1)"] * 2
    curve = [tuple(map(float, pair)) for pair in re.findall(r"([-\d.]+) ([-\d.]+)", paths[0].get("d", ""))]
    assert [place(mark) for mark in marks(root)][:3] == curve
    for (x, y), bar in zip(curve, bars, strict=False):
        (left, low), (right, high) = re.findall(r"([-\d.]+) ([-\d.]+)", bar.get("d", ""))
        assert (float(left), float(right)) == (x, x)
        assert float(low) - y == pytest.approx(y - float(high), abs=1e-4)
    assert curve == sorted(curve)  # to the right
    assert curve == sorted(curve, key=lambda at: -at[1])  # and up
    fills = [mark.get("fill") for mark in marks(root)]
    assert fills == ["var(--s0)"] * 3 + ["var(--page)"] * 3  # the second is hollow
    texts = [text.text for text in root.iter("text")]
    assert texts == ["2", "4", "8", "batch", "0", "10", "20", "30", "40", "img/s"]


def test_a_number_that_would_cover_another_is_left_out() -> None:
    x = Scale(label="batch", ticks=[1000, 1001, 2000], kind="log")
    points = [Point(x=tick, y=1, interval=None, tooltip="") for tick in x.ticks]
    root = ElementTree.fromstring(line_chart("", {STYLE: points}, x=x, y=linear_scale("", [1])))
    assert [text.text for text in root.iter("text")][:3] == ["1,000", "2,000", "batch"]


@pytest.mark.parametrize("chart", [two_lines(), swatch(STYLE)])
def test_a_drawing_takes_all_its_looks_from_the_page(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    for node in root.iter():
        assert node.tag in ("svg", "path", "text", "title")
        assert not {"id", "style", "class", "href", "font-family", "font-size"} & set(node.attrib)
    assert "#" not in chart  # neither colours nor links
    assert "url(" not in chart
    named = set(re.findall(r"var\(--(\w+)\)", chart))
    assert named <= set(LIGHT)
    assert set(LIGHT) == set(DARK)


def test_the_same_is_drawn_again_whatever_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = two_lines()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False, "lines.linewidth": 9}):
        assert two_lines() == chart
        assert matplotlib.rcParams["font.size"] == 30


def test_any_name_is_only_text() -> None:
    names = ["$x^2$", "\N{CJK UNIFIED IDEOGRAPH-7F51}", "a\nb\x01", "</svg>&"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        every = [Dot(x=10.0 ** (2 * i), y=i % 2, label=name, style=STYLE, tooltip=name) for i, name in enumerate(names)]
        root = scatter(every)
    written = [names[0], names[1], "a b ", names[3]]
    assert {mark.findtext("title") for mark in marks(root)} == set(written)
    assert set(written) <= {text.text for text in root.iter("text")}


def test_series_differ_without_their_colours() -> None:
    looks = {
        (style.marks["marker"], style.line["linestyle"], style.hollow)
        for style in (Style(model=m, variant=v) for m, v in product(range(8), range(4)))
    }
    assert len(looks) == 32


def test_colours_have_the_contrast_that_accessibility_asks_for() -> None:
    assert sum(name[1:].isdigit() for name in LIGHT) == 8
    for palette in (LIGHT, DARK):
        for name, colour in palette.items():
            floor = 4.5 if name in ("text", "quiet", "good", "bad", "caution") else 3.0
            if name not in ("page", "panel", "line", "hit", "miss"):
                assert contrast(colour, palette["page"]) >= floor, name
                assert contrast(colour, palette["panel"]) >= floor, name
    assert contrast("#000000", "#ffffff") == 21.0
    assert contrast("#ffffff", "#ffffff") == 1.0
