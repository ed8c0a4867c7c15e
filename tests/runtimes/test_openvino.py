"""OpenVINO runs what ONNX Runtime runs, in the precision of the file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError
from rexport.runtimes import open_runtime
from rexport.runtimes.openvino import OpenVino, _precision
from rexport.runtimes.source import Source
from tests.quantization._tables import sqnr_db
from tests.runtimes._files import KINDS, images_for, on_cpu, write

if TYPE_CHECKING:
    from pathlib import Path

openvino = pytest.importorskip("openvino", reason="pip install 'rexport[openvino]' to run files on it")

# Float32 logits are sums in another order: 110 dB and more. Between two implementations of the same integers a value at
# the edge of two steps goes the other way now and then: 40 dB and more, where 8 bits alone leave some 30.
_SQNR = {"float": 100.0, "raw": 100.0, "x86": 30.0, "openvino": 30.0, "raw openvino": 30.0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_those_of_onnxruntime(kind: str, tmp_path: Path) -> None:
    path, images = write(kind, tmp_path), images_for(kind, 5)
    with open_runtime("openvino", Source(path=path), threads=1) as runtime:
        logits = runtime.run(images)
        alone = runtime.run(images[:1])
        again = runtime.run(images)
    assert logits.dtype == np.float32
    assert logits.shape == (5, 10)
    assert sqnr_db(on_cpu(path, images), logits) > _SQNR[kind]
    assert sqnr_db(logits[:1], alone) > _SQNR[kind]  # another batch, compiled for itself
    np.testing.assert_array_equal(again, logits)  # and the results of a call are not those of the next


def test_another_model_is_told_apart(tmp_path: Path) -> None:
    images = images_for("float", 5)
    path = write("openvino", tmp_path)
    with open_runtime("openvino", Source(path=path), threads=1) as runtime:
        assert sqnr_db(on_cpu(write("float", tmp_path), images), runtime.run(images)) < _SQNR["float"]


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path, images = write("float", tmp_path, batch=4), images_for("float", 6)
    with open_runtime("openvino", Source(path=path), threads=1) as runtime:
        assert sqnr_db(on_cpu(path, images), runtime.run(images)) > _SQNR["float"]


def test_few_shapes_are_kept(tmp_path: Path) -> None:
    with OpenVino(Source(path=write("float", tmp_path)), threads=1) as runtime:
        for count in (1, 2, 3, 4, 5, 2):
            runtime.run(images_for("float", count))
        assert [shape[0] for (shape,) in runtime._requests] == [3, 4, 5, 2]


@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_those_asked_for(threads: int | None, tmp_path: Path) -> None:
    with OpenVino(Source(path=write("float", tmp_path)), threads=threads) as runtime:
        compiled = runtime.request(((2, 3, 32, 32),)).get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == (threads or this_cpu().cores)
        assert compiled.get_property("NUM_STREAMS") == 1
        assert compiled.get_property("PERFORMANCE_HINT") == "LATENCY"


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    cores = this_cpu().cores
    with (
        OpenVino(Source(path=write("float", tmp_path)), threads=cores + 1) as runtime,
        pytest.raises(
            UnavailableError, match=rf"runs on {cores} threads here, not on {cores + 1}.*pass --threads {cores}"
        ),
    ):
        runtime.run(images_for("float", 1))


@pytest.mark.parametrize("kind", ["float", "x86"])
def test_floats_are_not_rounded_to_bfloat16(kind: str, tmp_path: Path) -> None:
    with OpenVino(Source(path=write(kind, tmp_path)), threads=1) as runtime:
        compiled = runtime.request(((2, 3, 32, 32),)).get_compiled_model()
    ran_in = {op.get_rt_info()["runtimePrecision"].value for op in compiled.get_runtime_model().get_ordered_ops()}
    assert not {"bf16", "f16"} & ran_in
    assert "f32" in ran_in


def test_float16_takes_a_processor_that_multiplies_it(tmp_path: Path) -> None:
    core = openvino.Core()
    half, whole = (core.read_model(write(kind, tmp_path)) for kind in ("half", "float"))
    assert _precision(half, ["FP32", "BF16", "FP16"]) == "f16"
    assert _precision(half, ["FP32", "BF16"]) == "f32"  # bfloat16 has 3 bits less than the file
    assert _precision(whole, ["FP32", "BF16", "FP16"]) == "f32"


def test_a_float16_file_keeps_its_precision(tmp_path: Path) -> None:
    path, images = write("half", tmp_path), images_for("float", 4)
    with open_runtime("openvino", Source(path=path), threads=1) as runtime:
        # the same weights, of 11 bits; what is added up between them may be float16 or float32
        assert sqnr_db(on_cpu(path, images), runtime.run(images)) > 55


@pytest.mark.parametrize("bad", [b"not a model", b""], ids=["garbage", "empty"])
def test_a_model_that_does_not_load_is_a_model_file_error(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(bad)
    with pytest.raises(ModelFileError, match=r"bad\.onnx does not load in OpenVINO: .+\.$"):
        OpenVino(Source(path=tmp_path / "bad.onnx"))
    with pytest.raises(ModelFileError, match=r"none\.onnx does not exist"):
        OpenVino(Source(path=tmp_path / "none.onnx"))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[openvino\]'"):
        open_runtime("openvino", Source(path=write("float", tmp_path)))
