"""`rexport inspect`, and `--precision` of the commands that write files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from tests.cli._run import invoke, run, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("images")


@pytest.mark.slow
def test_half_a_file_and_what_is_said_of_it() -> None:
    document = run_json("onnx cifar_resnet8 -o half.onnx --precision fp16 --data images")
    assert document["precision"] == "fp16"
    assert document["half"]["float32_layers"] == []
    assert 0 < document["half"]["difference"] < 1e-2
    stored = {tensor.data_type for tensor in onnx.load("half.onnx").graph.initializer}
    assert stored == {onnx.TensorProto.FLOAT16}
    found = run_json("inspect half.onnx")
    assert (found["schema"], found["kind"], found["file"]) == ("rexport.inspect/1", "onnx", "half.onnx")
    assert found["precisions"] == {"float16": 14}
    text = run("inspect half.onnx")
    assert "12,501,632 for one picture of 32×32" in text
    assert "float16" in text
    assert run_json("eval half.onnx --data images --reference half.onnx")["agreement"] == 1.0


@pytest.mark.slow
def test_whether_numbers_fit_is_checked_with_images_alone() -> None:
    result = invoke("onnx", "cifar_resnet8", "-o", "half.onnx", "--precision", "fp16")
    assert result.exit_code == 0
    assert "was not checked; pass --data DIR" in result.stderr
    refused = invoke("onnx", "cifar_resnet8", "-o", "m.onnx", "--data", "images")
    assert refused.exit_code == 2
    assert "--data finds the layers that overflow in float16" in refused.stderr


@pytest.mark.slow
def test_every_target_is_written_from_one_calibration(export: Callable[..., object]) -> None:
    export("m.onnx")
    run("quantize m.onnx --data images -o x86.onnx --target x86 --save-table t.json")
    for target in ("arm", "openvino", "tensorrt"):
        document = run_json(f"quantize m.onnx --table t.json -o {target}.onnx --target {target}")
        assert document["target"] == target
        assert run_json(f"inspect {target}.onnx")["metadata"]["quantization"]["target"] == target
    half = run_json("quantize m.onnx --table t.json -o half.onnx --target tensorrt --precision int8+fp16")
    assert {layer["precision"] for layer in half["layers"]} == {"int8", "float16"}
    assert run_json("inspect t.json")["images"] == 6
    assert "minmax" in run("inspect t.json")
