"""A model repository as Triton's own definition of its configuration has it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rexport._errors import EngineFileError, OutputError, UsageError
from rexport.deploy.payload import BundleOptions, Payload, collect
from rexport.deploy.triton import TritonOptions, triton_files, write_repository
from rexport.device._manifest import Engine
from tests.deploy._bundles import CLASSES, classifier, maps, raw_classifier, saved

if TYPE_CHECKING:
    import onnx_ir as ir


@pytest.fixture(scope="session")
def definition() -> Any:
    """Triton's ``model_config.proto``, as its client has it compiled."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or client.origin is None:
        pytest.skip("Triton's definition comes with `pip install --no-deps tritonclient`")
    compiled = Path(client.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", compiled)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _collected(folder: Path, model: ir.Model | None = None) -> Payload:
    return collect(saved(folder, model), BundleOptions())


def _with_plans(payload: Payload, *capabilities: tuple[int, ...]) -> Payload:
    engines = tuple(
        (Engine(file=f"engines/{index}.engine", backend="tensorrt", version="10.3.0", capabilities=some), b"plan")
        for index, some in enumerate(capabilities)
    )
    return replace(payload, engines=engines, engine_batches=(4,) * len(engines))


def _config(payload: Payload, definition: Any, **options: Any) -> Any:
    from google.protobuf import text_format

    files = triton_files("tiny", payload, TritonOptions(**options))
    return text_format.Parse(files["config.pbtxt"].decode(), definition.ModelConfig())


_TEXT = """\
name: "tiny"
backend: "onnxruntime"
max_batch_size: 8
input {
  name: "x"
  data_type: TYPE_FP32
  format: FORMAT_NCHW
  dims: 3
  dims: 8
  dims: 8
}
output {
  name: "y"
  data_type: TYPE_FP32
  dims: 4
  label_filename: "labels.txt"
}
instance_group {
  kind: KIND_CPU
  count: 1
}
dynamic_batching {
  preferred_batch_size: 2
  preferred_batch_size: 4
  preferred_batch_size: 8
  max_queue_delay_microseconds: 500
}
model_warmup {
  name: "golden"
  batch_size: 1
  inputs {
    key: "x"
    value {
      data_type: TYPE_FP32
      dims: 3
      dims: 8
      dims: 8
      input_data_file: "golden"
    }
  }
}
"""


def test_each_output_is_named(tmp_path: Path, definition: Any) -> None:
    outputs = _config(_collected(tmp_path, maps()), definition).output
    assert [(output.name, list(output.dims)) for output in outputs] == [
        ("p3", [6, 8, 8]),
        ("p4", [6, 4, 4]),
        ("p5", [6, 2, 2]),
    ]


def test_a_repository(tmp_path: Path) -> None:
    payload = _collected(tmp_path)
    written = write_repository(tmp_path / "deep" / "repository", "tiny", payload, TritonOptions())
    assert written == tmp_path / "deep" / "repository" / "tiny"
    files = {path.relative_to(written).as_posix(): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    assert sorted(files) == ["1/model.onnx", "config.pbtxt", "labels.txt", "warmup/golden"]
    assert files["config.pbtxt"].decode() == _TEXT
    assert files["1/model.onnx"] == (tmp_path / "m.onnx").read_bytes()
    assert files["labels.txt"].decode().split() == list(CLASSES)
    warm_up = np.frombuffer(files["warmup/golden"], np.float32).reshape(1, 3, 8, 8)
    np.testing.assert_array_equal(warm_up, payload.golden.input)
    with pytest.raises(OutputError, match="is not empty; name another folder"):
        write_repository(tmp_path / "deep" / "repository", "tiny", payload, TritonOptions())


def test_tritons_definition_reads_it(tmp_path: Path, definition: Any) -> None:
    config = _config(_collected(tmp_path), definition, max_batch=6, queue_delay_us=100, instances=2, gpu=True)
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4, 6]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    (group,) = config.instance_group
    assert (group.kind, group.count) == (definition.ModelInstanceGroup.KIND_GPU, 2)
    assert list(config.input[0].dims) == [3, 8, 8]


def test_a_model_of_raw_pixels(tmp_path: Path, definition: Any) -> None:
    payload = _collected(tmp_path, raw_classifier())
    config = _config(payload, definition, max_batch=1)
    (taken,) = config.input
    assert (taken.data_type, taken.format) == (definition.TYPE_UINT8, definition.ModelInput.FORMAT_NHWC)
    assert list(taken.dims) == [8, 8, 3]
    assert not config.HasField("dynamic_batching")
    assert config.output[0].label_filename == ""
    assert "labels.txt" not in triton_files("tiny", payload, TritonOptions())


def test_a_batch_that_the_model_insists_on(tmp_path: Path, definition: Any) -> None:
    payload = _collected(tmp_path, classifier(batch="3"))
    config = _config(payload, definition)
    assert config.max_batch_size == 0
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([3, 3, 8, 8], [3, 4])
    warm_up = config.model_warmup[0]
    assert (warm_up.batch_size, list(warm_up.inputs["x"].dims)) == (1, [3, 3, 8, 8])
    assert len(triton_files("tiny", payload, TritonOptions())["warmup/golden"]) == payload.golden.input.nbytes


def test_a_plan_of_a_fixed_batch_is_served_with_it(tmp_path: Path, definition: Any) -> None:
    config = _config(_with_plans(_collected(tmp_path, classifier(batch="4")), (87,)), definition)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([4, 3, 8, 8], [4, 4])


def test_plans_of_tensorrt(tmp_path: Path, definition: Any) -> None:
    payload = _collected(tmp_path)
    config = _config(_with_plans(payload, (87,)), definition)
    assert (config.platform, config.backend, config.max_batch_size) == ("tensorrt_plan", "", 4)
    assert config.instance_group[0].kind == definition.ModelInstanceGroup.KIND_GPU
    assert sorted(triton_files("tiny", _with_plans(payload, (87,)), TritonOptions()))[0] == "1/model.plan"
    several = _with_plans(payload, (86, 89), (120,))
    config = _config(several, definition)
    assert dict(config.cc_model_filenames) == {
        "8.6": "model-86-89.plan",
        "8.9": "model-86-89.plan",
        "12.0": "model-120.plan",
    }
    files = triton_files("tiny", several, TritonOptions())
    assert {f"1/{name}" for name in config.cc_model_filenames.values()} <= set(files)


def test_what_triton_does_not_run(tmp_path: Path) -> None:
    payload = _collected(tmp_path)
    engine = Engine(file="engines/e.engine", backend="rtx", version="1.7.1.116", capabilities=(86,))
    with pytest.raises(EngineFileError, match="for TensorRT for RTX, and Triton runs TensorRT engines only"):
        triton_files("tiny", replace(payload, engines=((engine, b""),), engine_batches=(1,)), TritonOptions())
    with pytest.raises(UsageError, match="must be at least 1"):
        triton_files("tiny", payload, TritonOptions(max_batch=0))
