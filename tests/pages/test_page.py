"""What all pages guarantee: they ask for nothing, run nothing, and are made of text that stays text."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from rexport._errors import UnavailableError
from rexport.pages import require_extra, time_in_words
from tests.pages._parsed import Page
from tests.pages._reports import PAGES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", params=PAGES)
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return PAGES[request.param](tmp_path_factory.mktemp("page"), "network")


def policy_of(page: Page) -> str:
    return next(meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta)


def test_times_are_shown_in_one_format() -> None:
    assert time_in_words("2026-11-30T19:05:14Z") == "2026-11-30 19:05 UTC"
    assert time_in_words("2026-11-30T19:05:14.123456+02:00") == "2026-11-30 17:05 UTC"
    assert time_in_words("yesterday") == "yesterday"


def test_the_page_asks_for_nothing_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src", "action")
    ]
    pictures = [link for link in links if link is not None and re.match("data:image/(png|jpeg);base64,", link)]
    assert [link for link in links if link not in pictures] == ["data:,"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert "url(" not in text
    assert "@import" not in text
    assert policy_of(page).startswith("default-src 'none';")


def test_the_policy_names_the_style(text: str) -> None:
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy_of(Page(text))


def test_drawings_are_well_formed_and_pictures_have_names(text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) > 10
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert (root.get("role") == "img" and root.get("aria-label")) or root.get("aria-hidden") == "true"
    assert all(image["alt"] for image in Page(text).all("img"))


def test_tables_say_what_their_headers_head(text: str) -> None:
    page = Page(text)
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    pointers = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert pointers <= names
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("report", PAGES)
def test_names_are_only_text(tmp_path: Path, report: str) -> None:
    name = '"><script>alert(1)<script><img src=x onerror=alert(1)><style><title>&amp;{{ 7 * 7 }}'
    clean, page = Page(PAGES[report](tmp_path, "network")), Page(PAGES[report](tmp_path, name))
    assert name in "".join(page.text)
    # charts have names only where there is room for them
    assert [tag for tag, _ in page.tags if tag != "text"] == [tag for tag, _ in clean.tags if tag != "text"]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
@pytest.mark.parametrize("report", PAGES)
def test_without_its_packages_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, report: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        require_extra()
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        PAGES[report](tmp_path, "network")
