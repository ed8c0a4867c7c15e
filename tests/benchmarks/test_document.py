from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import InputError
from rexport.benchmarks import BenchResult, Row, machine_facts
from rexport.benchmarks.document import Sample, load_document, read_document, short_names
from rexport.benchmarks.reports import to_html, to_markdown
from rexport.benchmarks.results import timed

if TYPE_CHECKING:
    from pathlib import Path


def test_every_part_is_read(sample: dict[str, Any]) -> None:
    document = read_document(sample)
    assert document.machine.cpu == "AMD EPYC"
    assert len(document.rows) == len(sample["rows"])
    row = document.rows[0]
    assert row.seconds == tuple(sample["rows"][0]["seconds"])
    assert [len(block) for block in row.rounds] == sample["rows"][0]["calls_per_round"]
    assert row.launches == (4, 4)
    assert len(document.layers[0].layers) == 31
    assert [peak.gmacs_per_second for peak in document.peaks] == [860.2, 229.8]


def test_what_bench_writes_today_is_read() -> None:
    row = timed(Row(model="m.onnx", runtime="cpu", batch=2, threads=1), ((0.1, 0.2), (0.3,)))
    result = BenchResult(
        machine=machine_facts(), rows=(row,), command="rexport bench m.onnx", pictures=Sample(used=1, total=2)
    )
    assert read_document(json.loads(json.dumps(result.to_json()))) == result


def test_null_says_no_more_than_a_missing_key() -> None:
    row: dict[str, Any] = {"model": "m.onnx", "runtime": "cpu", "batch": 1, "threads": 1, "status": "ok"}
    nulls = ("scenario", "wrong", "latency_ms", "flags", "seconds", "calls_per_round", "phases_ms", "server", "top1")
    bare = {"schema": "rexport.bench/1", "machine": {"cpu": "a"}, "rows": [row]}
    null = {
        "schema": "rexport.bench/1",
        "machine": {"cpu": "a", "packages": {"numpy": None}, "gpu": None},
        "rows": [{**row, **dict.fromkeys(nulls)}],
        "layers": None,
    }
    assert read_document(null) == read_document(bare)


def test_facts_without_an_attribute_are_kept_in_words() -> None:
    machine = {"cpu": "a", "vnni": True, "gpu": "H200", "gpus": 2, "mig": False, "clocks": [1]}
    document = read_document({"schema": "rexport.bench/1", "machine": machine, "rows": []})
    assert document.machine.other == {"gpu": "H200", "gpus": "2", "mig": "no"}


def test_a_document_of_the_fewest_keys_is_read() -> None:
    row = {"model": "m.onnx", "runtime": "cpu", "batch": 1, "threads": 1, "status": "ok"}
    bare = {"schema": "rexport.bench/1", "machine": {"cpu": "a"}, "rows": [row]}
    assert read_document(bare).rows[0].scenario is None
    assert "m.onnx" in to_markdown(bare)
    assert "m.onnx" in to_html(bare)
    empty = {**bare, "rows": []}
    assert to_markdown(empty) == "a.\n"
    assert "<h1>" in to_html(empty)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "rexport.bench/0"}, "another version, rexport.bench/0"),
        ({"schema": "rexport.bench/2"}, "another version, rexport.bench/2"),
        ({"schema": "rexport.eval/1"}, "is a rexport.eval/1 document"),
        ({"schema": None}, "has no schema"),
        ({"machine": None}, "missing required field `machine`"),
        ({"machine": {"cpu": 3}}, r"machine\.cpu: expected `str`, got `int`"),
        ({"rows": {}}, "rows: expected `array`, got `object`"),
        ({"rows": [3]}, r"rows\[0\]: expected `object`, got `int`"),
        ({"layers": [{"model": "m"}]}, r"layers\[0\]: object missing required field `runtime`"),
        (
            {"peaks": [{"runtime": "cpu", "precision": "int8", "kind": 1}]},
            r"peaks\[0\]\.kind: expected `str`, got `int`",
        ),
    ],
)
def test_other_documents_are_refused(sample: dict[str, Any], change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_document({**sample, **change})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch": True}, r"rows\[0\]\.batch: expected `int`, got `bool`"),
        ({"batch": 0}, r"rows\[0\]\.batch: expected `int` >= 1"),
        ({"model": None}, r"rows\[0\]: object missing required field `model`"),
        ({"images_per_second": float("nan")}, r"images_per_second: expected `float` >= -1\.79"),
        ({"images_per_second": 10**400}, "images_per_second: number out of range"),
        ({"images_per_second": "fast"}, r"images_per_second: expected `float \| null`, got `str`"),
        ({"speedup_interval": [2.0, 1.0]}, "not a low and a high end"),
        (
            {"seconds": [0.1, -0.1], "calls_per_round": [2], "rounds_per_launch": [1]},
            r"rows\[0\]\.seconds\[1\]: expected `float` > 0",
        ),
        ({"calls_per_round": [1]}, "calls_per_round adds up to 1"),
        ({"rounds_per_launch": [1]}, "rounds_per_launch adds up to 1"),
        ({"flags": [1]}, r"flags\[0\]: expected `str`, got `int`"),
        ({"wrong": "no"}, r"wrong: expected `bool \| null`, got `str`"),
        ({"calls_per_round": [-1]}, r"calls_per_round\[0\]: expected `int` >= 0"),
        ({"server": 3}, r"rows\[0\]\.server: expected `object \| null`, got `int`"),
    ],
)
def test_a_row_of_nonsense_is_named(sample: dict[str, Any], change: dict[str, Any], says: str) -> None:
    sample["rows"] = [{**sample["rows"][0], **change}]
    with pytest.raises(InputError, match=says):
        read_document(sample)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, "\0", '{"schema": "rexport.bench/1"}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"old\.json"):
        load_document(file)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json can't be read: No such file"):
        load_document(tmp_path / "none.json")
    (tmp_path / "model.onnx").write_bytes(b"\x08\xff\xfe")
    with pytest.raises(InputError, match=r"model\.onnx is not text"):
        load_document(tmp_path / "model.onnx")


def test_names_are_short_where_that_is_clear() -> None:
    models = ["a/x.onnx", "b/x.onnx", "C:\\nets\\y.onnx", "resnet50"]
    assert list(short_names(models).values()) == ["a/x.onnx", "b/x.onnx", "y.onnx", "resnet50"]
