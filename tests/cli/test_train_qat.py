"""``rexport train --qat``: the INT8 file that it writes is the one that the network of its weights would give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rexport.cli._qat import Qat
from tests.cli._run import invoke

if TYPE_CHECKING:
    from pathlib import Path


_COMMON = ["train", "cifar_resnet8", "--data", "data", "--threads", "1", "--batch", "8", "--epochs", "2"]


@pytest.mark.slow
def test_weights_and_the_int8_file(workshop: Path) -> None:
    assert invoke(*_COMMON, "-o", "w.safetensors").exit_code == 0
    done = invoke(*_COMMON, "--weights", "w.safetensors", "--qat", "data/train", "-o", "q.safetensors", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["int8"] == "q.int8.onnx"
    assert not (workshop / "q.safetensors.resume").exists()
    exported = ["onnx", "cifar_resnet8", "--weights", "q.safetensors", "--num-classes", "2", "-o", "q.onnx"]
    assert invoke(*exported).exit_code == 0
    evaluated = invoke("eval", "q.int8.onnx", "--data", "data/test", "--reference", "q.onnx", "--json")
    assert evaluated.exit_code == 0, evaluated.output
    document = json.loads(evaluated.stdout)
    assert document["sqnr_db"] > 20  # INT8's own error; of other weights it would be below zero
    assert document["top1"] == 1.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--qat", "data/train"], "pass --weights FILE too"),
        (["--target", "x86"], "pass --qat DIR too"),
        (["--qat", "data/train", "--weights", "w", "--freeze-backbone"], "leave --freeze-backbone out"),
        (["--qat", "data/train", "--weights", "w", "--precision", "bf16"], "leave --precision bf16 out"),
    ],
)
def test_what_does_not_go_together_is_refused(workshop: Path, options: list[str], match: str) -> None:
    done = invoke(*_COMMON, "-o", "w.safetensors", *options)
    assert done.exit_code == 2
    assert match in str(done.stderr) or match in str(done.exception)


def test_without_it_nothing_is_asked() -> None:
    Qat.check(None, None, weights=None, freeze_backbone=True, precision="bf16")
