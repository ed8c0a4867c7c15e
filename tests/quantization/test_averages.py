"""Pooling in integers, as the runtimes' kernels do it, against the same file computed node by node."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from rexport._errors import ModelFileError
from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, quantize
from rexport.quantization.averages import write_padding_out
from rexport.runtimes.onnxruntime import executed_ops, open_session
from tests._graphs import convolution, graph, images, run
from tests.quantization._tables import sqnr_db

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.quantization import QuantizeResult, Target

_WEIGHTS = {"w": convolution(4, 3), "v": convolution(3, 4, 1)}
# of 17 pixels: with and without a window that hangs over, and one that would begin behind the picture
_WINDOWS = {
    "2/2": "kernel_shape=[2,2],strides=[2,2]",
    "3/2 padded": "kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]",
    "3/3 padded": "kernel_shape=[3,3],strides=[3,3],pads=[1,1,1,1]",
    "padded unevenly": "kernel_shape=[3,2],strides=[3,2],pads=[0,1,2,1]",
    "one pixel of three": "kernel_shape=[1,1],strides=[3,3]",
    "upper": 'kernel_shape=[2,2],strides=[2,2],auto_pad="SAME_UPPER"',
    "lower": 'kernel_shape=[3,2],strides=[2,2],auto_pad="SAME_LOWER"',
    "valid": 'kernel_shape=[2,2],strides=[2,2],auto_pad="VALID"',
    "dilated": "kernel_shape=[2,2],dilations=[2,2],pads=[1,1,1,1]",
    "not dilated": "kernel_shape=[2,2],strides=[2,2],dilations=[1,1]",
}
_OPTIONS = ("", ",ceil_mode=1", ",count_include_pad=1", ",ceil_mode=1,count_include_pad=1")
_AVERAGES = {
    f"{window}{option}": f"AveragePool <{attributes}{option}>"
    for (window, attributes), option in itertools.product(_WINDOWS.items(), _OPTIONS)
}
_OTHERS = {
    "global": "GlobalAveragePool",
    "largest, hanging over": "MaxPool <kernel_shape=[2,2],strides=[2,2],ceil_mode=1>",
    "largest, padded and hanging over": "MaxPool <kernel_shape=[3,3],strides=[3,3],pads=[1,1,1,1],ceil_mode=1>",
    "largest, dilated": "MaxPool <kernel_shape=[2,2],dilations=[2,2],pads=[1,1,1,1]>",
    "largest, by columns": "MaxPool <kernel_shape=[2,2],strides=[2,2],storage_order=1>",
    "largest, lower": 'MaxPool <kernel_shape=[3,3],strides=[2,2],auto_pad="SAME_LOWER">',
    "leaky": "LeakyRelu <alpha=0.1>",
    "sigmoid": "Sigmoid",
}
_X = images(2, 17)


def _model(pooling: str, *, size: object = 17) -> ir.Model:
    # no ReLU, so that zero is none of the ends of the integers
    body = f"a = Conv <pads=[1,1,1,1]> (x, w) p = {pooling} (a) y = Conv (p, v)"
    return graph(body, _WEIGHTS, inputs=f"float[N, 3, {size}, {size}] x", opset=19)


def _quantized(pooling: str, target: Target, *, size: object = 17) -> tuple[np.ndarray, QuantizeResult]:
    model = _model(pooling, size=size)
    return _node_by_node(model), quantize(model, calibrate(model, [_X]), target=target)


def _node_by_node(model: ir.Model) -> np.ndarray:
    result: np.ndarray = open_session(to_bytes(model), optimize=False).run(None, {"x": _X})[0]
    return result


def _assert_right(expected: np.ndarray, by_itself: np.ndarray, actual: np.ndarray) -> None:
    assert sqnr_db(expected, by_itself) > 30
    # a result that is nearly half-way between two integers may be the next; 30 dB are some steps in all of them
    assert sqnr_db(by_itself, actual) > 50


@pytest.mark.parametrize("target", [X86, ARM, TENSORRT], ids=lambda target: target.name)
@pytest.mark.parametrize("pooling", [*_AVERAGES.values(), *_OTHERS.values()], ids=[*_AVERAGES, *_OTHERS])
def test_onnxruntime_pools_as_the_file_says(pooling: str, target: Target) -> None:
    expected, result = _quantized(pooling, target)
    data = to_bytes(result.model)
    actual = open_session(data, as_on_arm=target is ARM, exact_sums=target is not ARM).run(None, {"x": _X})[0]
    _assert_right(expected, _node_by_node(result.model), actual)


# Of these the last window would begin behind the picture: OpenVINO has another result than ONNX Runtime in float too.
_BEHIND = [f"{window},ceil_mode=1,count_include_pad=1" for window in ("3/3 padded", "padded unevenly")]
_NOT_OPENVINO = {*_BEHIND, "largest, padded and hanging over"}
_IN_OPENVINO = {name: pooling for name, pooling in (_AVERAGES | _OTHERS).items() if name not in _NOT_OPENVINO}


@pytest.mark.parametrize("pooling", _IN_OPENVINO.values(), ids=_IN_OPENVINO)
def test_openvino_pools_as_the_file_says(pooling: str) -> None:
    openvino = pytest.importorskip("openvino")
    expected, result = _quantized(pooling, OPENVINO)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(to_bytes(result.model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    _assert_right(expected, _node_by_node(result.model), compiled(_X)[0])
    assert sqnr_db(expected, run(result.model, _X)[0]) > 30  # which judges the files of other targets too


@pytest.mark.parametrize("pooling", _AVERAGES.values(), ids=_AVERAGES)
def test_padding_that_is_written_out_changes_nothing(pooling: str) -> None:
    model = _model(pooling)
    expected = _node_by_node(model)
    write_padding_out(model.graph, X86)
    onnx.checker.check_model(to_bytes(model), full_check=True)
    np.testing.assert_allclose(_node_by_node(model), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_what_is_plain_stays_an_integer_kernel_without_a_pad() -> None:
    for pooling in (_AVERAGES["2/2,count_include_pad=1"], _AVERAGES["3/2 padded"], _AVERAGES["not dilated"]):
        _, result = _quantized(pooling, X86)
        executed = executed_ops(to_bytes(result.model))
        assert executed["QLinearAveragePool"] == 1
        assert not executed["Pad"]


def test_dilated_windows_stay_float_and_say_so() -> None:
    _, result = _quantized(_AVERAGES["dilated"], X86)
    assert {layer.name: layer.why for layer in result.layers if layer.precision != "int8"}["p"].endswith("dilated")


def test_pictures_of_any_size() -> None:
    any_size = partial(_quantized, size="S")
    padded = _AVERAGES["3/2 padded,count_include_pad=1"]
    hanging_over = _AVERAGES["3/3 padded,ceil_mode=1,count_include_pad=1"]
    same = _AVERAGES["upper,count_include_pad=1"]
    for pooling in (padded, hanging_over, same):
        expected, result = any_size(pooling, X86)
        _assert_right(expected, _node_by_node(result.model), run(result.model, _X)[0])
        assert (pooling is hanging_over) == any(
            layer.precision != "int8" for layer in result.layers if layer.name == "p"
        )
    any_size(padded, OPENVINO)
    for pooling in (hanging_over, same):
        with pytest.raises(ModelFileError, match="p includes padding in its average, which"):
            any_size(pooling, OPENVINO)


@pytest.mark.parametrize("name", _BEHIND)
def test_a_window_that_would_begin_behind_the_picture(name: str) -> None:
    _, result = _quantized(_AVERAGES[name], X86)
    assert {layer.name: layer.why for layer in result.layers}["p"] == "its windows reach beyond the padding"
    with pytest.raises(ModelFileError, match="which OpenVINO computes wrongly in INT8"):
        _quantized(_AVERAGES[name], OPENVINO)
