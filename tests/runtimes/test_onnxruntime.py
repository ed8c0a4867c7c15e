from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from rexport._errors import ModelFileError
from rexport.runtimes import open_runtime
from rexport.runtimes.onnxruntime import OnnxRuntimeCpu, executed_ops, open_session
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = """
    <ir_version: 9, opset_import: ["": 17]>
    float_model (float[N, 3, 8, 8] images) => (float[N, 4] logits)
    <float[4] scale = {1, 2, 3, 4}, float[4] bias = {0, 0, 0, 1},
     float[4] mean = {0, 0, 0, 0}, float[4] var = {1, 1, 1, 1}>
    {
        shape = Constant<value_ints = [4, 3, 3, 3]>()
        weight = ConstantOfShape<value = float[1] {0.5}>(shape)
        sums = Conv(images, weight)
        normal = BatchNormalization<epsilon = 0.0>(sums, scale, bias, mean, var)
        same = Identity(normal)
        pooled = GlobalAveragePool(same)
        logits = Flatten(pooled)
    }"""

# fuses into one integer convolution only where the bias has the scale 0.5 × 0.25
QUANTIZED = """
    <ir_version: 9, opset_import: ["": 17]>
    int8_model (float[1, 3, 8, 8] images) => (float[1, 4, 6, 6] sums)
    <float x_scale = {{0.5}}, uint8 x_zero = {{128}}, float w_scale = {{0.25}}, int8 w_zero = {{0}},
     float b_scale = {{{bias_scale}}}, int32 b_zero = {{0}}, int32[4] b = {{1, 2, 3, 4}}>
    {{
        shape = Constant<value_ints = [4, 3, 3, 3]>()
        w = ConstantOfShape<value = int8[1] {{3}}>(shape)
        xq = QuantizeLinear(images, x_scale, x_zero)
        x = DequantizeLinear(xq, x_scale, x_zero)
        wf = DequantizeLinear(w, w_scale, w_zero)
        bf = DequantizeLinear(b, b_scale, b_zero)
        y = Conv(x, wf, bf)
        yq = QuantizeLinear(y, x_scale, x_zero)
        sums = DequantizeLinear(yq, x_scale, x_zero)
    }}"""


def model(text: str) -> bytes:
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def test_executed_ops_are_those_after_optimization() -> None:
    # layout changes (ReorderInput and such) depend on the processor
    ops = {op: n for op, n in executed_ops(model(FLOAT)).items() if not op.startswith(("Reorder", "Transpose"))}
    assert ops == {"Conv": 1, "GlobalAveragePool": 1, "Flatten": 1}


def test_an_integer_convolution_is_told_from_one_that_fell_back_to_float() -> None:
    fused = executed_ops(model(QUANTIZED.format(bias_scale=0.125)))
    assert fused["QLinearConv"] == 1
    assert fused["Conv"] == 0
    fallen_back = executed_ops(model(QUANTIZED.format(bias_scale=0.25)))
    assert fallen_back["QLinearConv"] == 0


def test_the_logits_are_the_model_s(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(FLOAT))
    images = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    mean = 0.5 * windows.sum(axis=(1, 4, 5)).mean(axis=(1, 2))
    expected = mean[:, None] * np.array([1, 2, 3, 4]) + np.array([0, 0, 0, 1])
    with open_runtime("cpu", Source(path=path), threads=1) as runtime:
        np.testing.assert_allclose(runtime.run(images), expected, atol=1e-5)  # sums of 972 float32 products
        np.testing.assert_allclose(runtime.run(images[:1]), expected[:1], atol=1e-5)


def test_threads_are_those_asked_for() -> None:
    assert open_session(model(FLOAT), threads=3).get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize(
    "bad",
    [
        b"not a model",
        b"",
        model(FLOAT).replace(b"GlobalAveragePool", b"GlobalAverageFool"),
        model(FLOAT.replace("Conv(images, weight)", "Conv(images, scale)")),
    ],
    ids=["garbage", "empty", "unknown operator", "wrong rank"],
)
def test_a_model_that_does_not_load_is_a_model_file_error(bad: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="The model does not load"):
        open_session(bad)
    (tmp_path / "bad.onnx").write_bytes(bad)
    with pytest.raises(ModelFileError, match=r"bad\.onnx does not load"):
        OnnxRuntimeCpu(Source(path=tmp_path / "bad.onnx"))
