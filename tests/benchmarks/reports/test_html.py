from __future__ import annotations

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from rexport._errors import UnavailableError
from rexport.benchmarks.reports import compare, to_html

_VOID = {"meta", "link", "input", "br"}


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


def test_the_page_has_all_its_parts(sample: dict[str, Any]) -> None:
    text = to_html(sample)
    page = Page(text)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == ["To know", "Charts", "Measured", "How far from the limit", "Layer by layer", "Raw times"]
    assert len(page.all("figure")) == 3
    rows = text.split('<h2 id="rows">')[1].split("</table>")[0]
    assert rows.count("<tr") == 1 + sum(row["status"] == "ok" for row in sample["rows"])
    assert "Its process ended with signal 11" in text
    assert "quantize it too" in text
    assert sample["command"].split()[2] in text


def test_the_page_asks_for_nothing_and_runs_nothing(sample: dict[str, Any]) -> None:
    text = to_html(sample)
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


def test_the_policy_names_the_style(sample: dict[str, Any]) -> None:
    text = to_html(sample)
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy_of(Page(text))


def test_drawings_are_well_formed(sample: dict[str, Any]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", to_html(sample), flags=re.DOTALL)
    assert len(drawings) > 30
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img" or root.get("aria-hidden") == "true"


def test_tables_say_what_their_headers_head(sample: dict[str, Any]) -> None:
    page = Page(to_html(sample))
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
    planted["machine"]["cpu"] = planted["machine"]["gpu"] = planted["command"] = planted["created"] = text
    planted["rows"][0]["flags"] = [text]
    for layer in planted["layers"][0]["layers"]:
        layer["name"] = layer["op_type"] = layer["precision"] = layer["advice"] = text
    planted["peaks"][0]["kind"] = text
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


def test_without_jinja_it_is_said_what_to_install(sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        to_html(sample)
