from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest
from typer.testing import CliRunner

from rexport.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

QUICK = ("--min-seconds", "0.05", "--min-calls", "3", "--threads", "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(
        onnx.parser.parse_model("""
            <ir_version: 9, opset_import: ["": 17]>
            tiny (float[N, 3, 8, 8] images) => (float[N, 3] logits) {
                pooled = GlobalAveragePool(images)
                logits = Flatten(pooled)
            }"""),
        tmp_path / "tiny.onnx",
    )
    return tmp_path / "tiny.onnx"


def rexport(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_table_has_what_was_measured_and_the_notes_why_the_rest_was_not(model: Path) -> None:
    result = rexport("bench", model, "--on", "cpu,torch", "--batch", "1,2", *QUICK)
    assert result.exit_code == 0, result.output
    for words in ("img/s", "p50 ms", "p90 ms", "speed-up", "memory MiB", "; 1 thread", "1.00"):
        assert words in result.stdout
    assert result.stdout.count("tiny.onnx") == 2
    assert result.stderr.count("does not say which network") == 2


def test_json_is_the_one_document_on_stdout_and_in_the_file(model: Path, tmp_path: Path) -> None:
    result = rexport("bench", model, "--batch", "2", "--json", "-o", tmp_path / "r.json", *QUICK)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "rexport.bench/1"
    assert json.loads((tmp_path / "r.json").read_text()) == document
    (row,) = document["rows"]
    assert (row["model"], row["runtime"], row["batch"], row["threads"], row["status"]) == (
        str(model),
        "cpu",
        2,
        1,
        "ok",
    )
    assert len(row["seconds"]) == sum(row["calls_per_round"]) >= 3


def test_nothing_measured_is_exit_code_5_with_the_reason(tmp_path: Path) -> None:
    result = rexport("bench", "cifar_resnet20", "--on", "cpu", "--batch", "1", "--json", *QUICK)
    assert result.exit_code == 5
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["unavailable"]
    assert "rexport onnx cifar_resnet20" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cifar_resnet20", "--on", "abacus"), "choose from cpu"),
        (("cifar_resnet20", "--batch", "1,many"), "numbers such as 1,8"),
        (("cifar_resnet20", "--batch", "0"), "1 image or more"),
        (("no_such_network",), "no_such_network"),
        (("missing.onnx",), "does not exist"),
    ],
)
def test_a_mistake_is_exit_code_2_and_a_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = rexport("bench", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not result.stdout


def test_a_bad_file_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    result = rexport("bench", tmp_path / "bad.onnx")
    assert result.exit_code == 1
    assert "bad.onnx" in result.stderr


def test_a_folder_that_is_not_there_is_told_before_measuring(tmp_path: Path) -> None:
    result = rexport("bench", "cifar_resnet20", "-o", tmp_path / "missing" / "r.json")
    assert result.exit_code == 1
    assert "mkdir" in result.stderr
