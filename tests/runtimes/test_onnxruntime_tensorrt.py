"""What the TensorRT provider is told, which depends on the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rexport._errors import ModelFileError
from rexport.runtimes import open_runtime
from rexport.runtimes.onnxruntime_tensorrt import facts_of, provider_options
from rexport.runtimes.source import Source
from tests.runtimes._files import images_for, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "quantized", "half"), [("float", 0, 0), ("half", 0, 1), ("tensorrt", 1, 0), ("raw tensorrt", 1, 0)]
)
def test_precisions_are_those_of_the_file(kind: str, quantized: int, half: int, tmp_path: Path) -> None:
    facts = facts_of(write(kind, tmp_path))
    options = provider_options(facts, (8, *images_for(kind, 1).shape[1:]), tmp_path)
    assert (options["trt_int8_enable"], options["trt_fp16_enable"]) == (str(quantized), str(half))
    assert "trt_int8_calibration_table_name" not in options  # the scales are the file's


def test_an_open_batch_gets_a_profile_of_the_images(tmp_path: Path) -> None:
    facts = facts_of(write("float", tmp_path))
    assert facts.shape == (None, 3, 32, 32)
    options = provider_options(facts, (8, 3, 32, 32), tmp_path)
    assert {options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")} == {"images:8x3x32x32"}
    fixed = facts_of(write("float", tmp_path, batch=4))
    assert fixed.shape == (4, 3, 32, 32)
    assert not [key for key in provider_options(fixed, (4, 3, 32, 32), tmp_path) if "profile" in key]


def test_engines_are_kept_apart_by_weights_and_shapes(tmp_path: Path) -> None:
    path = write("float", tmp_path)
    facts, shape = facts_of(path), (8, 3, 32, 32)
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, tmp_path / "other.onnx")
    other = facts_of(tmp_path / "other.onnx")
    folders = {
        provider_options(f, s, tmp_path)["trt_engine_cache_path"]
        for f, s in ((facts, shape), (facts, (1, 3, 32, 32)), (other, shape))
    }
    assert len(folders) == 3
    assert all(folder.startswith(str(tmp_path)) for folder in folders)
    assert provider_options(facts_of(path), shape, tmp_path) == provider_options(facts, shape, tmp_path)


def test_weights_in_another_file_count_too(tmp_path: Path) -> None:
    model = onnx.load(write("float", tmp_path))
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = facts_of(path)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert facts_of(path).sha256 != before.sha256


def test_a_file_that_is_no_model_is_a_model_file_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"bad\.onnx does not load"):
        facts_of(tmp_path / "bad.onnx")


@pytest.mark.gpu
@pytest.mark.usefixtures("tensorrt")
def test_on_a_gpu_engines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    images = images_for("float", 2)
    with open_runtime("tensorrt", Source(path=write("float", tmp_path))) as runtime:
        runtime.run(images)
    assert list((tmp_path / "cache" / "tensorrt").rglob("*.engine"))
