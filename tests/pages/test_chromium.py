"""The page in a real browser: light, dark, on a phone, on paper."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rexport.benchmarks.reports import compare, to_html
from tests.benchmarks.conftest import SAMPLE
from tests.pages._chromium import NAMES, Chromium, find_chromium
from tests.pages._palette import DARK, LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

PHONE = 390  # pixels, the width of most phones


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip(f"no Chromium is installed (none of {', '.join(NAMES)}); `apt-get install chromium`")
    with Chromium(program) as chromium:
        yield chromium


@pytest.fixture
def page(tmp_path: Path) -> Path:
    sample = json.loads(SAMPLE.read_text(encoding="utf-8"))
    sample["rows"][0]["model"] = "<script>console.error('ran')</script>" + "very-long-name-" * 8 + ".onnx"
    file = tmp_path / "report.html"
    file.write_text(to_html(sample, compare(sample, sample)), encoding="utf-8")
    return file


def background(png: bytes) -> tuple[str, float]:
    """Return the colour that most pixels have, and the share of pixels that have another."""
    red, green, blue = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.uint32).reshape(-1, 3).T
    colours, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    most = int(counts.argmax())
    return f"#{colours[most]:06x}", 1 - counts[most] / len(red)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, PHONE])
def test_the_page_is_drawn_without_a_complaint_or_a_request(
    browser: Chromium, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark, phone=width == PHONE)
    assert browser.complaints() == []
    assert browser.requested() == [page.resolve().as_uri()]
    colour, drawn = background(browser.screenshot())
    assert colour == (DARK if dark else LIGHT)["page"]
    assert drawn > 0.04  # text, tables and charts; an empty page has none


@pytest.mark.parametrize("width", [320, PHONE, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: Chromium, page: Path, width: int) -> None:
    browser.open(page, width=width, phone=width < 768)
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    # only tables may be wider, each in a frame of its own that scrolls
    wide = browser.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table') && !e.closest('legend')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_letters_in_charts_are_readable_on_a_phone(browser: Chromium, page: Path) -> None:
    browser.open(page, width=PHONE, phone=True)
    heights = browser.evaluate(
        "[...document.querySelectorAll('.charts svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 20
    assert min(heights) >= 9  # CSS pixels


def test_the_colours_can_be_chosen_against_the_system(browser: Chromium, page: Path) -> None:
    browser.open(page, width=1280, dark=True)
    for theme, palette in (("light", LIGHT), ("dark", DARK), ("auto", DARK)):
        browser.evaluate(f"document.getElementById('theme-{theme}').click()")
        assert background(browser.screenshot(whole=False))[0] == palette["page"]


def test_paper_is_white_whatever_was_chosen(browser: Chromium, page: Path) -> None:
    browser.open(page, width=1280, dark=True)
    browser.evaluate("document.getElementById('theme-dark').click()")
    printed = browser.send("Page.printToPDF", printBackground=True)
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('.theme')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="")


def test_the_check_sees_what_it_looks_for(browser: Chromium, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<img src='other.png'><script>console.error('ran')</script><p style='width: 2000px'>wide</p>")
    browser.open(file, width=PHONE)
    assert any("ran" in complaint for complaint in browser.complaints())
    assert any(url.endswith("other.png") for url in browser.requested())
    assert browser.evaluate("document.documentElement.scrollWidth") > PHONE
    assert background(browser.screenshot())[1] < 0.04
