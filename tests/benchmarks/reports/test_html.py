from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from rexport.benchmarks.reports import compare, to_html
from tests.benchmarks.conftest import SAMPLE
from tests.pages._parsed import Page


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the sample."""
    return to_html(json.loads(SAMPLE.read_text(encoding="utf-8")))


def test_the_page_has_all_its_parts(text: str, sample: dict[str, Any]) -> None:
    page = Page(text)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == ["To know", "Charts", "Measured", "How far from the limit", "Layer by layer", "Raw times"]
    assert len(page.all("figure")) == 3
    rows = text.split('<h2 id="rows">')[1].split("</table>")[0]
    assert rows.count("<tr") == 1 + sum(row["status"] == "ok" for row in sample["rows"])
    assert "Its process ended with signal 11" in text
    assert "quantize it too" in text
    assert sample["command"].split()[2] in text


def test_bars_stay_on_their_track(sample: dict[str, Any]) -> None:
    for row, share in zip(sample["rows"], (1.7, -0.1), strict=False):
        row["share_of_peak"] = share
    text = to_html(sample)
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([-\d.]+)"', text)]
    assert max(widths) == 99  # of 100
    assert min(widths) >= 0
    assert "170 %" in text


def test_raw_times_stay_in_their_strip(sample: dict[str, Any]) -> None:
    row = sample["rows"][0]
    times = [0.1, *(1.0 + i / 20_000 for i in range(4000)), 9.0]
    row |= {"seconds": times, "calls_per_round": [2000, 2002], "rounds_per_launch": [2]}
    strips = re.findall(r'class="strokes" d="(.*?)"', to_html(sample))
    assert len(strips) == sum(row["status"] == "ok" for row in sample["rows"])
    places = [float(place) for place in re.findall(r"M([-\d.]+)", strips[0])]
    assert len(places) == len(set(places)) <= 201  # thousands of calls take no more strokes than pixels
    assert {0.0, 100.0} <= set(places)
    assert all(0 <= place <= 100 for place in places)


def test_layers_beyond_the_slowest_are_one_row_unless_there_is_advice(sample: dict[str, Any]) -> None:
    layers = sample["layers"][0]["layers"]
    assert len(layers) == 31
    fastest = min(layers, key=lambda layer: layer["share"])
    fastest["advice"] = "Do it otherwise."
    table = to_html(sample).split('<h2 id="layers">')[1].split("</table>")[0]
    assert table.count("<svg") == 16
    assert "15 more" in table
    assert "Do it otherwise." in table


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>.onnx", '"><img src=x onerror=alert(1)>', "</style></title>&amp;"]
)
def test_names_and_sentences_are_only_text(sample: dict[str, Any], text: str) -> None:
    clean = [tag for tag, _ in Page(to_html(sample)).tags]
    planted = copy.deepcopy(sample)
    for row in planted["rows"]:
        row["model"] = row["model"].replace("cifar_resnet20.onnx", text)
        row["reason"] = row["reason"] and text
    planted["machine"]["cpu"] = planted["machine"]["gpu"] = planted["command"] = planted["time"] = text
    planted["rows"][0]["flags"] = [text]
    for layer in planted["layers"][0]["layers"]:
        layer["name"] = layer["op_type"] = layer["precision"] = layer["advice"] = text
    planted["peaks"][0]["runtime"] = text
    page = Page(to_html(planted, compare(planted, planted)))
    assert text.rpartition("/")[2] in "".join(page.text)
    assert {tag for tag, _ in page.tags} <= {*clean, "table", "ul"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_accuracy_falls_back_to_sqnr_and_to_agreement(sample: dict[str, Any]) -> None:
    for row in sample["rows"]:
        row["top1"] = None
    assert "SQNR in dB against latency" in to_html(sample)
    assert "∞" in to_html(sample)
    for row in sample["rows"]:
        row["sqnr_db"] = None
    assert "Agreement with the first model against latency" in to_html(sample)
    for row in sample["rows"]:
        row["agreement"] = None
    assert "against latency" not in to_html(sample)


def test_one_batch_size_has_no_curves(sample: dict[str, Any]) -> None:
    sample["rows"] = [row for row in sample["rows"] if row["batch"] == 1]
    assert "Throughput</h3>" not in to_html(sample)


def test_what_the_server_scenario_tried_is_shown(sample: dict[str, Any]) -> None:
    trial = {"rate_per_second": 100.0, "queries": 700, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "held": True}
    server = {"latency_bound_ms": 20.0, "percentile": 99, "trials": [trial, {**trial, "held": False}]}
    sample["rows"][0] |= {"scenario": "server", "server": {**server, "rate_per_second": 100.0}}
    assert "100 queries a second hold within 20 ms at p99" in to_html(sample)
    sample["rows"][0]["server"] = {**server, "rate_per_second": None}
    assert "no rate holds within 20 ms" in to_html(sample)


def test_a_note_says_where_if_it_is_of_rows_alone(sample: dict[str, Any]) -> None:
    sample["machine"]["load_average"] = 2.0
    text = "".join(Page(to_html(sample)).text)
    assert "caution: the machine was busy when measuring began (load 2 on 2 cores)" in text
    assert "caution cifar_resnet" in text
    assert "2026-11-24 18:58 UTC" in text
