"""The pages in a real browser: light, dark, on a phone, on paper."""

from __future__ import annotations

import base64
import io
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.pages._chromium import NAMES, Chromium, find_chromium
from tests.pages._palette import DARK, LIGHT
from tests.pages._reports import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

PHONE = 390  # pixels, the width of most phones
WIDTHS = [PHONE, 400, 768, 1280, 1600]
OPEN_DETAILS = "document.querySelectorAll('details').forEach(details => { details.open = true; })"
# what is written, and where it can be seen: a line of text, cut off at the frame that it scrolls in
TEXTS = """(() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest('legend, title')) continue;
    const frame = parent.closest('.scroll')?.getBoundingClientRect();
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      const left = Math.max(box.left, frame?.left ?? box.left);
      const right = Math.min(box.right, frame?.right ?? box.right);
      if (right > left) texts.push([left, box.top, right, box.bottom, node.data.trim()]);
    }
  }
  return texts;
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip(f"no Chromium is installed (none of {', '.join(NAMES)}); `apt-get install chromium`")
    with Chromium(program) as chromium:
        yield chromium


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    name = "<script>console.error('ran')</script>" + "very-long-name-" * 8
    file = folder / "report.html"
    file.write_text(PAGES[request.param](folder, name), encoding="utf-8")
    return file


def background(png: bytes) -> tuple[str, float]:
    """Return the colour that most pixels have, and the share of pixels that have another."""
    red, green, blue = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.uint32).reshape(-1, 3).T
    colours, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    most = int(counts.argmax())
    return f"#{colours[most]:06x}", 1 - counts[most] / len(red)


def covering(texts: list[tuple[float, float, float, float, str]]) -> list[tuple[str, str]]:
    """Return the pairs of texts that share more than a pixel in both directions."""
    return [
        (text, other)
        for (left, top, right, bottom, text), (x0, y0, x1, y1, other) in combinations(texts, 2)
        if min(right, x1) - max(left, x0) > 1 and min(bottom, y1) - max(top, y0) > 1
    ]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_drawn_without_a_complaint_or_a_request(
    browser: Chromium, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark, phone=width == PHONE)
    assert browser.complaints() == []
    assert browser.requested() == [page.resolve().as_uri()]
    colour, drawn = background(browser.screenshot())
    assert colour == (DARK if dark else LIGHT)["page"]
    assert drawn > 0.04  # text, tables and charts; an empty page has none


@pytest.mark.parametrize("width", [320, *WIDTHS])
def test_nothing_is_wider_than_the_window(browser: Chromium, page: Path, width: int) -> None:
    browser.open(page, width=width, phone=width < 768)
    browser.evaluate(OPEN_DETAILS)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    # only tables may be wider, each in a frame of its own that scrolls
    wide = browser.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table') && !e.closest('legend')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_covers_another(browser: Chromium, page: Path, width: int) -> None:
    browser.open(page, width=width, phone=width < 768)
    browser.evaluate(OPEN_DETAILS)
    texts = browser.evaluate(TEXTS)
    assert len(texts) > 100
    assert covering(texts) == []


def test_every_picture_has_a_name(browser: Chromium, page: Path) -> None:
    browser.open(page, width=1280)
    names = browser.names_of("image")
    assert len(names) == browser.evaluate("document.querySelectorAll('img, svg:not([aria-hidden])').length") > 0
    assert all(names)


def test_letters_in_charts_are_readable_on_a_phone(browser: Chromium, page: Path) -> None:
    browser.open(page, width=PHONE, phone=True)
    heights = browser.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(t => t.getBoundingClientRect().height)"
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
    assert browser.names_of("image") == [""]
    file.write_text("<p>here</p><p style='margin-top: -2em'>there</p>")
    browser.open(file, width=PHONE)
    assert covering(browser.evaluate(TEXTS)) == [("here", "there")]
    assert background(browser.screenshot())[1] < 0.04
