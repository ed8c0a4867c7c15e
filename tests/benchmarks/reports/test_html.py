from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from rexport._errors import UnavailableError
from rexport.benchmarks.reports import compare, require_extra, to_html
from tests.benchmarks.conftest import SAMPLE

_VOID = {"meta", "link", "input", "br"}


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the sample."""
    return to_html(json.loads(SAMPLE.read_text(encoding="utf-8")))


class Page(HTMLParser):
    """What is in a page; a tag that is not closed where it has to be fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def policy_of(page: Page) -> str:
    return next(meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta)


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


def test_the_page_asks_for_nothing_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & {tag for tag, _ in page.tags}
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src", "action")
    ]
    assert links == ["data:,"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert "url(" not in text
    assert "@import" not in text
    assert policy_of(page).startswith("default-src 'none';")


def test_the_policy_names_the_style(text: str) -> None:
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy_of(Page(text))


def test_drawings_are_well_formed(text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) > 30
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img" or root.get("aria-hidden") == "true"


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


def test_tables_say_what_their_headers_head(text: str) -> None:
    page = Page(text)
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    pointers = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert pointers <= names
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


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
    assert "2026-11-24T18:58:00Z" in text


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_without_its_packages_it_is_said_what_to_install(
    sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        require_extra()
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        to_html(sample)
