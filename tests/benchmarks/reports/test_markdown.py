from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.reports import changes_to_markdown, compare, to_markdown
from rexport.benchmarks.reports.markdown import code, escaped

GOLDEN = Path(__file__).parent / "sample.md"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_sample_is_written_as_it_was() -> None:
    import json

    sample = json.loads((GOLDEN.parent / "sample.json").read_text(encoding="utf-8"))
    assert to_markdown(sample) == GOLDEN.read_text(encoding="utf-8")


def test_every_line_of_the_table_has_its_columns(sample: dict[str, Any]) -> None:
    lines = [line for line in to_markdown(sample).splitlines() if line.startswith("|")]
    measured = [row for row in sample["rows"] if row["status"] == "ok"]
    assert len(lines) == 2 + len(measured)
    assert {len(line) for line in lines} == {len(lines[0])}  # readable as plain text
    header = cells(lines[0])
    first = dict(zip(header, cells(lines[2]), strict=True))
    assert first["model"] == "`cifar_resnet20.onnx`"
    assert first["img/s"] == "4,733"
    assert first["top-1"] == "91.73 %"
    assert len(lines[0]) < 150


def test_columns_that_nothing_is_known_for_are_left_out(sample: dict[str, Any]) -> None:
    for row in sample["rows"]:
        row["top1"] = row["share_of_peak"] = None
    header = next(line for line in to_markdown(sample).splitlines() if line.startswith("|"))
    assert not {"top-1", "of peak"} & set(cells(header))


def test_a_wrong_model_is_never_the_fastest(sample: dict[str, Any]) -> None:
    row = next(row for row in sample["rows"] if row["model"] == "cifar_resnet20-int8.onnx" and row["batch"] == 1)
    assert "Fastest at batch 1: cifar_resnet20-int8.onnx" in to_markdown(sample).replace("\\", "")
    row["wrong"] = True
    text = to_markdown(sample).replace("\\", "")
    assert "Fastest at batch 1: cifar_resnet20.onnx" in text
    assert "**wrong** cifar_resnet20-int8.onnx on cpu, batch 1" in text


def test_names_of_files_are_no_markup(sample: dict[str, Any]) -> None:
    name = "<script>alert(1)</script>|`x`@someone **b**\nnext.onnx"
    for row in sample["rows"]:
        row["model"] = row["model"].replace("cifar_resnet20.onnx", name)
    text = to_markdown(sample)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(cells(line)) for line in lines}) == 1
    outside = re.sub(r"(`+).*?[^`]\1(?!`)", "", text)  # code spans show what they hold
    assert "<script" not in outside
    assert "@someone" not in outside
    assert "**b**" not in outside


@given(st.text())
def test_a_code_span_ends_where_it_should(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence[0]) : -len(fence[0])]
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inner)
    assert "\n" not in span
    assert not re.search(r"(?<!\\)\|", span)


@given(st.text())
def test_escaped_text_has_no_markup(text: str) -> None:
    shown = escaped(text)
    assert not re.search(r"[<>@\n]", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*|\[\]]", re.sub(r"\\[`*|\[\]]", "", shown))


def test_a_comparison_marks_what_is_past_the_bound(sample: dict[str, Any]) -> None:
    import copy

    slow = copy.deepcopy(sample)
    slow["rows"][0]["seconds"] = [2 * second for second in slow["rows"][0]["seconds"]]
    text = changes_to_markdown(compare(sample, slow, 5))
    assert "**slower**" in text
    assert "1 slower beyond noise" in text
