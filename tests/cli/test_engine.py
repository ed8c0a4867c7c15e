"""The command, on a real small network; what is refused is refused in a sentence, and nothing is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rexport.calibration import calibrate
from rexport.model_file import save
from rexport.quantization import TENSORRT, X86, quantize
from tests.cli._run import rexport
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.quantization import Target


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")


def _file(folder: Path, target: Target = TENSORRT) -> Path:
    model = exported("cifar_resnet8")
    save(quantize(model, calibrate(model, [pictures(2)]), target=target).model, folder / "m.onnx")
    return folder / "m.onnx"


def test_an_engine_and_what_it_is(tmp_path: Path) -> None:
    output = tmp_path / "m.engine"
    done = rexport("engine", _file(tmp_path), "-o", output, "--sm", "86,89", "--batch", "1:2:4", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "rexport.engine/1"
    assert (document["capabilities"], document["batch"]) == ([86, 89], [1, 2, 4])
    assert document == {**json.loads((tmp_path / "m.engine.json").read_text()), "file": str(output)}
    inspected = rexport("inspect", output)
    assert inspected.returncode == 0, inspected.stderr
    assert "10 in int8" in inspected.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--backend", "abacus"), 2, "choose tensorrt or rtx"),
        (("--sm", "many"), 2, "such as 86,89"),
        (("--sm", "90"), 5, "a data-center GPU"),
        (("--sm", "75,86"), 2, "one with --sm 75"),
        (("--batch", "8:1"), 2, "such as 1:8:32"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = rexport("engine", _file(tmp_path), "-o", tmp_path / "m.engine", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_a_file_for_another_target_writes_nothing(tmp_path: Path) -> None:
    done = rexport("engine", _file(tmp_path, X86), "-o", tmp_path / "m.engine")
    assert done.returncode == 1
    assert "rule symmetric" in done.stderr
    assert not (tmp_path / "m.engine").exists()
