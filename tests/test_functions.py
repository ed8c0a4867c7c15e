"""The commands as functions: texts in place of paths, and results that say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import rexport
from rexport.functions import _converted
from rexport.models import build
from tests.training._images import write_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_images(tmp_path_factory.mktemp("pictures") / "digits", count=6))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small network as an ONNX file, exported by the function itself."""
    file = str(tmp_path_factory.mktemp("model") / "model.onnx")
    network = build("cifar_resnet8", num_classes=2).train()
    report = rexport.export(network, output=file, size=32, mean=[0.5] * 3, std=[0.25] * 3)
    assert network.training  # a copy was exported
    assert repr(report).startswith(f"ExportReport(file: {file}, ")
    assert "equal to PyTorch" in report._repr_html_()
    return file


def test_texts_and_lists_become_what_requests_have(tmp_path: Path) -> None:
    assert _converted("a.onnx", "Path | None") == Path("a.onnx")
    assert _converted(["a", "b"], "tuple[Path, ...]") == (Path("a"), Path("b"))
    assert _converted(tmp_path, "str") == str(tmp_path)
    assert _converted([1, 2], "tuple[int, ...] | None") == (1, 2)
    assert _converted(None, "Path | None") is None


def test_a_model_from_export_to_prediction(model: str, pictures: str, tmp_path: Path) -> None:
    fused = rexport.fuse(model, output=str(tmp_path / "fused.onnx"))
    assert fused.difference is not None
    int8 = str(tmp_path / "int8.onnx")
    quantized = rexport.quantize(model, data=pictures, output=int8, recovery="equalize", target="x86")
    assert quantized.size is not None
    assert f"of {len(quantized.layers)} in INT8" in repr(quantized)
    evaluation = rexport.evaluate(int8, data=pictures, reference=model)
    assert evaluation.reference is not None
    predictions = rexport.predict(int8, pictures, top=2)
    assert "<th>probability</th>" in predictions._repr_html_()
