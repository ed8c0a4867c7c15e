from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.document import read_document
from rexport.benchmarks.reports.table import Kind, Note, findings, notes, number, rows_table, three_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

REASON = "There is no driver."


def noted(rows: Sequence[dict[str, Any]]) -> tuple[Note, ...]:
    return notes(read_document({"schema": "rexport.bench/1", "machine": {"cpu": "some"}, "rows": list(rows)}))


def row(model: str = "net.onnx", runtime: str = "cpu", batch: int = 1, **changed: Any) -> dict[str, Any]:
    return {"model": model, "runtime": runtime, "batch": batch, "threads": 2, "status": "ok", **changed}


def gone(model: str, runtime: str, batch: int) -> dict[str, Any]:
    return row(model, runtime, batch, status="unavailable", reason=REASON)


def test_a_runtime_that_is_not_there_is_named_once() -> None:
    rows = [one for batch in (1, 8) for one in (row("a.onnx", batch=batch), gone("a.onnx", "cuda", batch))]
    assert noted(rows) == (Note(kind=Kind.UNAVAILABLE, where="cuda", text=REASON),)


def test_rows_of_a_runtime_that_others_have_are_named_one_by_one() -> None:
    rows = [row("a.onnx", "cuda"), gone("b.onnx", "cuda", 1), gone("b.onnx", "cuda", 8)]
    assert [note.where for note in noted(rows)] == ["b.onnx on cuda, batch 1, 8"]


def test_a_sentence_about_many_rows_names_three() -> None:
    rows = [row(f"{name}.onnx", flags=["Slow."]) for name in "abcde"] + [row("f.onnx")]
    places = "a.onnx on cpu, batch 1; b.onnx on cpu, batch 1; c.onnx on cpu, batch 1; and 2 more"
    assert noted(rows) == (Note(kind=Kind.CAUTION, where=places, text="Slow."),)


def test_wrong_outputs_are_noted_once_with_the_reason_where_it_is_known() -> None:
    rows = [
        row("a.onnx"),
        row("b.onnx", wrong=True, flags=["WRONG: its outputs are noise."]),
        row("c.onnx", wrong=True),
    ]
    first, second = noted(rows)
    assert first == Note(kind=Kind.WRONG, where="b.onnx on cpu, batch 1", text="its outputs are noise.")
    assert (second.kind, second.where) == (Kind.WRONG, "c.onnx on cpu, batch 1")


def test_a_cpu_quota_is_a_caution() -> None:
    machine = {"cpu": "some", "cpu_quota": 1.5}
    (note,) = notes(read_document({"schema": "rexport.bench/1", "machine": machine, "rows": []}))
    assert note.text.startswith("the container's CPU quota is the time of 1.5 cores, and what needs more")


def test_small_numbers_keep_their_digits_and_none_is_a_dash() -> None:
    rows = [
        row(gmacs_per_second=50.006, share_of_peak=0.50006),
        row(gmacs_per_second=0.034, share_of_peak=0.004),
        row(),
    ]
    table = rows_table(read_document({"schema": "rexport.bench/1", "machine": {"cpu": "some"}, "rows": rows}))
    columns = dict(zip(table.columns, zip(*table.cells, strict=True), strict=True))
    assert columns["GMAC/s"] == ("50.0", "0.0340", "–")
    assert columns["of peak"] == ("50 %", "0 %", "–")


def test_an_interval_that_tells_nothing_is_said_to_be_too_noisy() -> None:
    rows = [
        row("a.onnx", images_per_second=100.0, speedup=1.0, speedup_interval=(1.0, 1.0)),
        row("b.onnx", images_per_second=150.0, speedup=1.5, speedup_interval=(0.01, 223.5)),
        row("a.onnx", batch=8, images_per_second=100.0, speedup=1.0, speedup_interval=(1.0, 1.0)),
        row("b.onnx", batch=8, images_per_second=150.0, speedup=1.5, speedup_interval=(1.2, 1.9)),
    ]
    document = read_document({"schema": "rexport.bench/1", "machine": {"cpu": "some"}, "rows": rows})
    table = rows_table(document)
    column = table.columns.index("speed-up (95 %)")
    assert [cells[column] for cells in table.cells] == ["1.00", "too noisy", "1.00", "1.50 (1.20–1.90)"]
    assert findings(document) == (
        "Fastest at batch 1: b.onnx on cpu, 150 img/s; times are too noisy to compare it with a.onnx on cpu.",
        "Fastest at batch 8: b.onnx on cpu, 150 img/s, 1.50 × as fast as a.onnx on cpu (95 % interval 1.20 to 1.90).",
    )


def test_that_outputs_are_of_drawn_pictures_is_in_the_heading_and_noted_once() -> None:
    rows = [row(), row("int8.onnx", agreement=0.9, sqnr_db=11.0), row("int8.onnx", agreement=0.9, sqnr_db=11.0)]
    document = {"schema": "rexport.bench/1", "machine": {"cpu": "some"}, "rows": rows}
    drawn = read_document({**document, "drawn_pictures": True})
    assert "SQNR dB, drawn" in rows_table(drawn).columns
    (note,) = notes(drawn)
    assert "pass --data PICTURES" in note.text
    assert "SQNR dB" in rows_table(read_document(document)).columns
    assert notes(read_document(document)) == ()


def test_a_sample_of_the_pictures_is_noted() -> None:
    document = {"schema": "rexport.bench/1", "machine": {"cpu": "some"}, "rows": [row(top1=0.9)]}
    (note,) = notes(read_document({**document, "pictures": {"used": 256, "total": 10_000}}))
    assert note.text.startswith("top-1, agreement and SQNR are of 256 of the 10,000 pictures in --data; --samples")
    assert notes(read_document({**document, "pictures": {"used": 256, "total": 256}})) == ()


@given(st.floats(1e-6, 1e9))
def test_three_digits_are_within_half_of_the_third(value: float) -> None:
    for text in (three_digits(value), number(value)):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005 + 1e-9)
