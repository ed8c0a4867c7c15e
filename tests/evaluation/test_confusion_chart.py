"""The confusion matrix as a picture: its counts, its colours, and the classes that it draws of many."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="charts need it: pip install 'rexport[report]'")

from rexport.evaluation.confusion_chart import MOST_CLASSES, classes_to_draw, confusion_chart
from rexport.evaluation.result import Counts, Evaluation
from tests.pages._palette import DARK, LIGHT, contrast


def evaluation(confusion: dict[tuple[int, int], int], outputs: int) -> Evaluation:
    counts = Counts(images=sum(confusion.values()), confusion=Counter(confusion))
    return Evaluation.of(counts, classes=outputs, labelled=True, compared=None, skipped=())


def drawing(confusion: dict[tuple[int, int], int], names: list[str]) -> ElementTree.Element:
    return ElementTree.fromstring(confusion_chart(evaluation(confusion, len(names)), range(len(names)), names))


def test_cells_are_counts_and_the_larger_the_share_the_stronger_the_colour() -> None:
    confusion = {(0, 0): 90, (0, 1): 10, (1, 1): 30, (1, 0): 20, (2, 2): 1, (2, 0): 1}
    root = drawing(confusion, ["cat", "dog & <b>", "empty"])
    texts = [text.text for text in root.iter("text") if text.find("title") is not None]
    assert texts == ["90", "10", "20", "30", "1", "1"]
    cells = {path.findtext("title"): path for path in root.iter("path") if path.find("title") is not None}
    assert list(cells) == [
        "cat: 90 of 100 right",
        "cat: 10 of 100 predicted as dog & <b>",
        "dog & <b>: 20 of 50 predicted as cat",
        "dog & <b>: 30 of 50 right",
        "empty: 1 of 2 predicted as cat",
        "empty: 1 of 2 right",
    ]
    fills = [cell.get("fill") for cell in cells.values()]
    assert fills == [f"var(--{name})" for name in ("hit", "miss", "miss", "hit", "miss", "hit")]
    # the opacity is 0.12 + 0.88 of the share, that of mistakes compared with the largest, which has none left out
    opacities = [float(cell.get("opacity", 1)) for cell in cells.values()]
    assert opacities == pytest.approx([0.12 + 0.88 * share for share in (0.9, 0.2, 0.8, 0.6, 1, 0.5)])
    assert root.get("aria-label") == "Confusion matrix of 3 classes: 121 of 152 images are on its diagonal"


def test_rows_are_classes_and_columns_predictions() -> None:
    root = drawing({(0, 0): 1, (0, 2): 1, (1, 1): 1, (2, 2): 1}, ["a", "b", "c"])
    places = {
        path.findtext("title"): tuple(map(float, re.findall(r"[-\d.]+", path.get("d", ""))[:2]))
        for path in root.iter("path")
        if path.find("title") is not None
    }
    (x, y), (right, same_row) = places["a: 1 of 2 right"], places["a: 1 of 2 predicted as c"]
    assert (right > x, same_row == y) == (True, True)
    assert places["c: 1 of 1 right"] > (x, y)
    assert places["c: 1 of 1 right"][1] > y


@pytest.mark.parametrize("names", [["one", "two"], ["x" * 80, "\N{CJK UNIFIED IDEOGRAPH-7F51}\n\x01"] * 10])
def test_everything_stands_inside_and_takes_its_looks_from_the_page(names: list[str]) -> None:
    chart = confusion_chart(evaluation({(0, 1): 123_456, (1, 1): 7}, len(names)), range(len(names)), names)
    root = ElementTree.fromstring(chart)
    width, height = map(float, root.get("viewBox", "").split()[2:])
    texts = [text.text or "" for text in root.iter("text")]
    assert {"predicted", "class", "123,456"} <= set(texts)
    assert max(map(len, texts)) <= 20
    for text in root.iter("text"):
        turned = re.match(r"translate\((\S+) (\S+)\) rotate", text.get("transform", ""))
        x, y = map(float, turned.groups() if turned else (text.get("x", ""), text.get("y", "")))
        assert 0 <= x <= width
        assert 0 <= y <= height
    assert "#" not in chart
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(LIGHT)


def test_of_many_classes_those_that_are_confused_most_are_drawn() -> None:
    confusion = {(i, i): 50 for i in range(1000)} | {(i, i + 1): i for i in range(0, 998, 2)}
    drawn = classes_to_draw(evaluation(confusion, 1000))
    assert drawn == tuple(range(978, 998))
    assert len(drawn) == MOST_CLASSES
    assert classes_to_draw(evaluation({(0, 0): 1}, 20)) == tuple(range(20))
    assert classes_to_draw(evaluation({(i, i): 1 for i in range(21)}, 21)) == ()


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["hit", "miss"])
def test_counts_can_be_read_on_every_cell(palette: dict[str, str], name: str) -> None:
    colours = [[int(palette[key][start : start + 2], 16) for start in (1, 3, 5)] for key in ("page", name)]
    for percent in range(0, 101, 10):
        mixed = [round(page + (cell - page) * percent / 100) for page, cell in zip(*colours, strict=True)]
        assert contrast(palette["text"], "#{:02x}{:02x}{:02x}".format(*mixed)) >= 4.5
    assert contrast(palette[name], palette["page"]) >= 3
