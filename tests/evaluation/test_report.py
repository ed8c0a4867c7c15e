"""The page of an evaluation: its sentences, what it lists and leaves out, and how it says so."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("jinja2", reason="pages need it: pip install 'rexport[report]'")

from rexport.evaluation.report import Report, to_html
from rexport.evaluation.result import Mistake
from tests.pages._parsed import Page
from tests.pages._reports import evaluation_of, evaluation_report

if TYPE_CHECKING:
    from pathlib import Path


def many(outputs: int, *mistakes: Mistake) -> Report:
    classes = [f"class {index}" for index in range(outputs)]
    return Report(evaluation=evaluation_of(outputs, mistakes), classes=classes, model="m.onnx", reference="r.onnx")


def section(text: str, name: str) -> str:
    return text.split(f'id="{name}">')[1].split("</table>")[0]


def test_the_page_has_all_its_parts(tmp_path: Path) -> None:
    text = to_html(evaluation_report(tmp_path))
    headings = re.findall(r"<h[23][^>]*>(.*?)</h", text)
    assert headings == [
        "To know",
        "Class by class",
        "Confusion matrix",
        "Accuracy by class, the worst first",
        "Most frequent confusions",
        "Most confident mistakes",
        "Layer by layer",
    ]
    page = Page(text)
    facts = dict(zip(re.findall("<dt>(.*?)</dt>", text), re.findall("<dd>(.*?)</dd>", text), strict=True))
    assert facts["Agreement"] == "95.00 %"
    assert facts["SQNR"] == "30.0 dB"
    assert facts["Command"] == "<code>rexport eval airplane</code>"
    assert "airplane is assumed." in text
    assert [image["alt"] for image in page.all("img")] == [
        "airplane, predicted as class 1",
        "class 1, predicted as class 2",
        "class 2, predicted as class 3",
    ]
    assert '<span class="quiet">2.png</span>' in text
    assert "12.5 dB</td><td>3.0e-01 relative</td>" in section(text, "layers")


def test_the_result_is_said_in_sentences() -> None:
    report = many(10)
    accuracy = "m.onnx gets 900 of 1,000 images right: top-1 is 90.00 % (95 % interval 87.98 % to 91.71 %)"
    assert report.findings == (
        f"{accuracy}, 1.00 points less than that of r.onnx (91.00 %).",
        "It agrees with r.onnx on 95.00 % of the images; the SQNR of its logits is 30.0 dB.",
    )
    comparison = report.evaluation.comparison
    assert comparison is not None
    for top1, change in ((0.9, "the same as that of r.onnx"), (0.8, "10.00 points more than that of r.onnx (80.00 %)")):
        evaluation = replace(report.evaluation, comparison=replace(comparison, reference_top1=top1))
        assert replace(report, evaluation=evaluation).findings[0] == f"{accuracy}, {change}."
    alone = replace(report, reference=None, evaluation=replace(report.evaluation, comparison=None))
    assert alone.findings == (f"{accuracy}.",)
    exact = replace(report.evaluation, comparison=replace(comparison, sqnr_db=math.inf))
    assert "logits is ∞ (equal to the last bit)." in replace(report, evaluation=exact).findings[1]


def test_without_labels_there_is_only_agreement(tmp_path: Path) -> None:
    report = evaluation_report(tmp_path)
    evaluation = replace(report.evaluation, top1=None, top1_interval=None, top5=None, confusion=Counter(), worst=())
    text = to_html(replace(report, evaluation=evaluation))
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == ["To know", "Layer by layer"]
    assert "It agrees with model.onnx on 95.00 % of the images" in text


def test_of_many_classes_the_worst_are_listed_and_the_others_counted() -> None:
    report = many(1000)
    report.evaluation.confusion[500, 500] -= 1
    text = to_html(report)
    table = section(text, "accuracies")
    assert table.count("<tr") == 21
    assert re.findall(r'<th scope="row" class="word">(.*?)</th>', table)[:2] == ["class 500", "class 0"]
    assert "980 more classes have 90.0 % or more" in text
    assert section(text, "confusions").count("<tr") == 11
    assert "1,990 more pairs are confused, each at most 7 times." in text
    assert "Only the 20 classes with the most mistakes, of 1,000, are drawn." in " ".join(text.split())


def test_mistakes_in_arrays_are_a_table() -> None:
    text = to_html(many(10, Mistake(image="test.npz[3]", label=0, prediction=1, probability=0.5)))
    assert "<img" not in text
    assert '<th scope="row" class="word">test.npz[3]</th><td class="word">class 0</td>' in section(text, "mistakes")


def test_without_a_mistake_there_is_no_list_of_them() -> None:
    report = many(10)
    evaluation = replace(report.evaluation, top1=1.0, confusion=Counter({(0, 0): 5}))
    text = to_html(replace(report, evaluation=evaluation))
    assert "Most frequent confusions" not in text
    assert "Most confident mistakes" not in text
    assert section(text, "accuracies").count("<tr") == 2  # classes without images are left out
