"""What a model takes, read from its file."""

from __future__ import annotations

import re
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from rexport._errors import ModelFileError, UsageError
from rexport.model_inputs import (
    ImageInput,
    image_input,
    is_size_assumed,
    picture_size,
    preprocessing_of,
    state_preprocessing,
)
from rexport.preprocessing import Layout, PictureOptions, Preprocessing, Takes

RGB = ImageInput(name="x", channels=3, height=None, width=None, batch=None, raw=False, layout=Layout.NCHW)
PIXELS = replace(RGB, raw=True, layout=Layout.NHWC)


def with_inputs(inputs: str) -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["": 18]> graph ({inputs}) => (float[A] y) {{ y = Relu(x) }}'
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("float[N, 3, 224, 224] x", replace(RGB, height=224, width=224)),
        ("float[8, 3, 32, 32] x", replace(RGB, height=32, width=32, batch=8)),
        ("float[N, 3, H, W] x", RGB),
        ("float[N, 3, 32, W] x", replace(RGB, height=32)),
        ("float[N, 3, 28, 32] x", replace(RGB, height=28, width=32)),
        ("float[N, 1, 28, 28] x", replace(RGB, channels=1, height=28, width=28)),
        ("float[N, 4, 28, 28] x", replace(RGB, channels=4, height=28, width=28)),
        ("float[N, 28, 32, 3] x", replace(RGB, height=28, width=32, layout=Layout.NHWC)),
        ("float[N, H, W, 1] x", replace(RGB, channels=1, layout=Layout.NHWC)),
        ("float[N, 3, 32, 3] x", replace(RGB, height=32, width=3)),  # either would do: floats have channels first
        ("uint8[N, 224, 224, 3] x", replace(PIXELS, height=224, width=224)),
        ("uint8[8, H, W, 3] x", replace(PIXELS, batch=8)),
        ("uint8[N, 3, 28, 32] x", replace(PIXELS, height=28, width=32, layout=Layout.NCHW)),
        ("uint8[N, 3, 32, 3] x", replace(PIXELS, height=3, width=32)),
    ],
)
def test_the_picture_is_found(inputs: str, expected: ImageInput) -> None:
    assert image_input(with_inputs(inputs)) == expected


def test_a_layout_that_is_named_is_taken() -> None:
    model = with_inputs("float[N, 3, 32, 3] x")
    assert image_input(model, layout=Layout.NHWC) == replace(RGB, height=3, width=32, layout=Layout.NHWC)
    preprocessing = preprocessing_of(model, options=PictureOptions(layout=Layout.NHWC))
    assert (preprocessing.size, preprocessing.axes) == ((3, 32), Layout.NHWC)
    state_preprocessing(model, preprocessing)
    assert image_input(model).layout is Layout.NHWC
    with pytest.raises(ModelFileError, match="has no image input"):
        image_input(with_inputs("float[N, 3, 32, 32] x"), layout=Layout.NHWC)


def test_weights_that_are_inputs_are_no_pictures() -> None:
    model = with_inputs("float[N, 3, 8, 8] x, float[4, 3, 1, 1] w")
    weight = model.graph.inputs[1]
    weight.const_value = ir.tensor([[[[0.0]]] * 3] * 4, name="w")
    model.graph.register_initializer(weight)
    assert image_input(model).name == "x"


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ("float[N, 2, 28, 28] x", "x: float32 of shape (N, 2, 28, 28)"),
        ("uint8[N, 28, 28, C] x", "x: uint8 of shape (N, 28, 28, C)"),
        ("int8[N, 28, 28, 3] x", "x: int8 of shape (N, 28, 28, 3)"),
        ("float[N, 3] x, int64[1] n", "x: float32 of shape (N, 3); n: int64 of shape (1)"),
        ("float x", "x: float32 of shape ()"),
        ("float[] x", "x: float32 of unknown shape"),
        ("float[?, 3] x", "x: float32 of shape (?, 3)"),
        ("float[0, 3, 28, 28] x", "x: float32 of shape (0, 3, 28, 28)"),
        ("float[N, 3, 0, 0] x", "x: float32 of shape (N, 3, 0, 0)"),
        ("bfloat16[N, 3] x", "x: bfloat16 of shape (N, 3)"),
        ("float8e4m3fn[N] x", "x: float8_e4m3fn of shape (N)"),
        ("int4[N] x", "x: int4 of shape (N)"),
        ("complex64[N] x", "x: complex64 of shape (N)"),
        ("string[N] x", "x: string of shape (N)"),
        ("seq(float[N, 3, 28, 28]) x", "x: sequence of float32"),
        ("optional(float[N, 3, 28, 28]) x", "x: optional of float32"),
    ],
)
def test_no_picture(inputs: str, found: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        image_input(with_inputs(inputs), "some/model.onnx")
    assert str(caught.value) == (
        "some/model.onnx has no image input: expected one float32 or uint8 input of shape (N, C, H, W) or "
        f"(N, H, W, C), with 1, 3 or 4 channels; found {found}."
    )


def test_an_input_of_no_type_is_no_picture() -> None:
    model = with_inputs("float[N, 3, 8, 8] x")
    (image,) = model.graph.inputs
    for kind, found in (
        (ir.TensorType(ir.DataType.UNDEFINED), "x: unknown type of shape (N, 3, 8, 8)"),
        (None, "x: unk"),
    ):
        image.type = kind
        with pytest.raises(ModelFileError, match=rf"found {re.escape(found)}"):
            image_input(model)


def test_open_sides_are_those_that_are_stated() -> None:
    model = with_inputs("float[N, 3, 32, W] x")
    assert picture_size(model) == (32, 224)
    assert is_size_assumed(model)
    assert preprocessing_of(model, options=PictureOptions(size=(32, 100))).size == (32, 100)
    with pytest.raises(UsageError, match=r"--size 48×100: m\.onnx takes pictures of 32×any\."):
        preprocessing_of(model, "m.onnx", PictureOptions(size=(48, 100)))
    state_preprocessing(model, Preprocessing(size=(32, 320)))
    assert picture_size(model) == (32, 320)
    assert not is_size_assumed(model)


def test_what_is_assumed_depends_on_the_channels() -> None:
    said: list[str] = []
    preprocessing = preprocessing_of(with_inputs("float[N, 1, 28, 64] x"), "m.onnx", note=said.append)
    assert (preprocessing.mean, preprocessing.std, preprocessing.resize) == ((0.0,), (1.0,), (28, 64))
    (note,) = said
    assert note.startswith("m.onnx does not say how pictures become its input; taking grey pictures resized to 28×64,")
    with pytest.raises(UsageError, match=r"--mean 0\.5,0\.5,0\.5: m\.onnx takes pictures of 1 channel\."):
        preprocessing_of(with_inputs("float[N, 1, 28, 64] x"), "m.onnx", PictureOptions(mean=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (Preprocessing(size=28, takes=Takes.PIXELS), "it takes pixels images, and its input is of another type"),
        (Preprocessing(size=28, mean=(0.5,), std=(0.5,)), "its pictures have 1 channel, and its input has 3"),
        (Preprocessing(size=32), "its pictures are of 32×32 pixels, and its input is of 28×28"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(stated: Preprocessing, message: str) -> None:
    model = with_inputs("float[N, 3, 28, 28] x")
    state_preprocessing(model, stated)
    with pytest.raises(ModelFileError, match=f"says that {message}; export it again"):
        preprocessing_of(model)


def test_shapes_of_batches() -> None:
    assert RGB.shape(8, 2) == (2, 3, 8, 8)
    assert PIXELS.shape((8, 16), 1) == (1, 8, 16, 3)


def test_an_empty_default_of_an_input_is_none_of_pictures() -> None:
    proto = ir.to_proto(with_inputs("float[N, 3, 8, 8] x"))
    proto.graph.input.append(helper.make_tensor_value_info("regions", TensorProto.FLOAT, [0]))
    proto.graph.initializer.append(helper.make_tensor("regions", TensorProto.FLOAT, [0], []))
    assert image_input(ir.from_proto(proto)).name == "x"
