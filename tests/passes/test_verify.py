from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rexport._errors import ModelFileError, VerificationError
from rexport.models import build
from rexport.passes import Reference, fuse, verify_equal
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from tests._networks import torchscript_export, trained_like
from tests.passes._models import parse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

TWO_OUTPUTS = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 3] x, int64[N] i) => (float[N, 3] y, float[N, 3] z)
    <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 10}, float[3] b = {1, 2, 3}>
    { y = Gemm(x, w, b)  g = Gather<axis = 0>(y, i)  z = Relu(g) }"""


@pytest.fixture(scope="module")
def network() -> ir.Model:
    return torchscript_export(trained_like(build("resnet[depth=8,stages=3,shortcut=B]", seed=0)), size=32)


def changed(model: ir.Model, name: str, index: tuple[int, ...], by: float) -> ir.Model:
    """Return a copy in which one weight is off by a fraction of its tensor's largest."""
    clone = model.clone()
    value = clone.graph.initializers[name]
    array = value.const_value.numpy().copy()
    array[index] += by * np.abs(array).max()
    value.const_value = ir.tensor(array, name=name)
    return clone


@pytest.mark.slow
def test_a_model_is_equal_to_itself(network: ir.Model) -> None:
    assert verify_equal(network, network.clone()) == 0


def test_fusion_changes_no_more_than_rounding(network: ir.Model) -> None:
    assert 0 < verify_equal(network, fuse(network).model) < 2e-6


@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.downsample.0.weight", "fc.bias"])
def test_one_wrong_weight_is_found(network: ir.Model, name: str) -> None:
    fused = fuse(network).model
    array = fused.graph.initializers[name].const_value
    wrong = changed(fused, name, (0,) * len(array.shape), 1.0)
    with pytest.raises(VerificationError, match=r"Fusion changed the output 'scores': .* difference .*e-0[1-4] "):
        verify_equal(network, wrong)


def test_the_second_output_counts_too() -> None:
    model, wrong = parse(TWO_OUTPUTS), parse(TWO_OUTPUTS.replace("Relu(g)", "Neg(g)"))
    with pytest.raises(VerificationError, match="the output 'z'"):
        verify_equal(model, wrong)


def test_the_tolerance_can_be_chosen() -> None:
    model = parse(TWO_OUTPUTS)
    wrong = changed(model, "b", (0,), 1e-3)
    with pytest.raises(VerificationError):
        verify_equal(model, wrong)
    assert 1e-5 < verify_equal(model, wrong, tolerance=1e-2) < 1e-2


def test_other_shapes_are_a_difference() -> None:
    model = parse(TWO_OUTPUTS)
    wrong = parse(TWO_OUTPUTS.replace("float[N, 3] z", "float[N, 1] z").replace("z = R", "h = R").replace(
        "(g) }", "(g)  z = ReduceMax(h, one) }").replace("float[3] b", "int64[1] one = {1}, float[3] b"))  # fmt: skip
    with pytest.raises(VerificationError, match="'z': max relative difference inf"):
        verify_equal(model, wrong)


def test_nan_is_a_difference_unless_it_was_there_before() -> None:
    model = parse(TWO_OUTPUTS)
    broken = changed(model, "b", (0,), np.nan)
    with pytest.raises(VerificationError, match="'y': max relative difference inf"):
        verify_equal(model, broken)
    with pytest.raises(VerificationError, match="'y': max relative difference nan"):
        verify_equal(broken, model)
    assert verify_equal(broken, broken.clone()) == 0


def test_a_changed_model_that_is_not_valid_is_a_difference() -> None:
    model = parse(TWO_OUTPUTS)
    broken = model.clone()
    broken.graph.node(0).op_type = "Gemn"
    with pytest.raises(VerificationError, match="not valid ONNX"):
        verify_equal(model, broken)


def test_a_changed_model_that_does_not_run_is_a_difference() -> None:
    model = parse(TWO_OUTPUTS)
    broken = model.clone()
    value = broken.graph.initializers["w"]
    value.const_value, value.shape = ir.tensor(np.ones((4, 3), np.float32), name="w"), ir.Shape([4, 3])
    with pytest.raises(VerificationError, match="The fused model does not run, although the original does"):
        verify_equal(model, broken)


def test_an_original_that_does_not_run_is_no_difference() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> graph (float[A, B] x) => (float[A, B] y) { y = Reshape(x, t) }'
    model = parse(text.replace("{ y", "<int64[2] t = {5, 5}> { y"))
    with pytest.raises(ModelFileError, match=r"does not run on random inputs"):
        verify_equal(model, model.clone())


@pytest.mark.parametrize(
    "text",
    [
        "(float[0, 2] x) => (float[0, 2] y) { y = Relu(x) }",
        "(float[A, 2] x) => (float[A, 0] y) <int64[2] t = {2, 0}, float[2, 0] w = {}> { y = MatMul(x, w) }",
        "(float[A, 2] x) => (float[A, 2] z, float[A, 0] y) <float[2, 0] w = {}> { y = MatMul(x, w) z = Relu(x) }",
    ],
)
def test_nothing_is_no_proof(text: str) -> None:
    model = parse(f'<ir_version: 9, opset_import: ["": 18]> graph {text}')
    with pytest.raises(ModelFileError, match=r"output 'y' is empty for random inputs"):
        verify_equal(model, model.clone())


def test_an_input_without_a_type_can_t_be_tried() -> None:
    model = parse(TWO_OUTPUTS)
    model.graph.inputs[0].dtype = ir.DataType.UNDEFINED
    with pytest.raises(ModelFileError, match=r"'x' is no tensor of a known type"):
        verify_equal(model, model.clone())


def test_an_input_without_a_shape_can_t_be_tried() -> None:
    model = parse(TWO_OUTPUTS)
    shapeless = model.clone()
    shapeless.graph.inputs[0].shape = None
    with pytest.raises(ModelFileError, match=r"'x' has no shape, so the model can't be run on random inputs"):
        verify_equal(shapeless, model)


def test_what_is_only_stored_in_float16_may_not() -> None:
    def model(weight: float) -> ir.Model:
        return parse(f"""
            <ir_version: 9, opset_import: ["": 18]>
            g (float[N, 2] x) => (float[N, 2] y) <float16[1] w = {{1}}, float k = {{{weight}}}>
            {{ f = Cast<to = 1>(w)  a = Mul(x, f)  y = Mul(a, k) }}""")

    assert Reference(model(1)).tolerance == 1e-4
    with pytest.raises(VerificationError):
        verify_equal(model(1), model(1.001))


def test_float16_may_round_as_float16_does(network: ir.Model) -> None:
    half = network.clone()
    for value in [*half.graph.initializers.values(), *half.graph.inputs, *half.graph.outputs]:
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
    for node in half.graph:
        for value in node.outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
    fused = fuse(half).model
    assert 1e-5 < verify_equal(half, fused) < 3e-3
    with pytest.raises(VerificationError):
        verify_equal(half, changed(fused, "fc.bias", (0,), 10.0))


# pixels

PIXELS = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (uint8[N, H, W, 3] x) => (uint8[N, H, W, 3] y) <uint8 low = {2}> { y = Max(x, low) }"""


def test_all_levels_of_gray_are_tried() -> None:
    model = parse(PIXELS)
    with pytest.raises(VerificationError, match="'y'"):
        verify_equal(model, parse(PIXELS.replace("{2}", "{3}")))
    with pytest.raises(VerificationError, match="'y'"):
        verify_equal(model, parse(PIXELS.replace("{2}", "{0}")))


def test_a_model_and_its_raw_form_see_the_same_pictures(network: ir.Model) -> None:
    preprocessing = Preprocessing(size=64, mean=(0.2, 0.3, 0.4), std=(0.3, 0.2, 0.1))
    reference = Reference(network, preprocessing=preprocessing)
    fused = fuse(network).model
    assert 0 < reference.difference(with_raw_images(fused, preprocessing)) < 2e-6
    assert 0 < reference.difference(fused) < 2e-6
    with pytest.raises(VerificationError, match="'scores'"):
        reference.difference(with_raw_images(fused, replace(preprocessing, mean=(0.2, 0.3, 0.41))))


def test_an_open_picture_is_as_large_as_pictures_become() -> None:
    model = parse(
        """
        <ir_version: 9, opset_import: ["": 18]>
        g (float[N, 3, H, W] x) => (float[N, 1] y) <float[192, 1] w, int64[2] s = {0, -1}>
        { f = Reshape(x, s)  y = MatMul(f, w) }""".replace("w,", "w = {" + ", ".join(["1"] * 192) + "},")
    )
    with pytest.raises(ModelFileError):
        Reference(model)
    preprocessing = Preprocessing(size=8, mean=(0.2, 0.3, 0.4), std=(0.3, 0.2, 0.1))
    assert Reference(model, preprocessing=preprocessing).difference(model.clone()) == 0


def test_an_open_picture_is_in_colour() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[N, C, H, W] x) => (float[N, 2, H, W] y) <float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}> { y = Conv(x, w) }
    """)
    assert verify_equal(model, model.clone()) == 0


def test_an_open_picture_with_channels_last_is_large_enough() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[N, H, W, 3] x) => (float[N, I, J, 3] y) <int64[4] s = {0, 9, 9, 0}, int64[4] e = {9, 99, 99, 9}>
        { y = Slice(x, s, e) }
    """)
    assert verify_equal(model, model.clone()) == 0


def test_text_and_sequences_are_compared_too() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        g (float[2] x, string[3] t) => (string[3] u, seq(float[2]) s) {
            u = Identity(t)
            y = Mul(x, x)
            s = SequenceConstruct(x, SECOND)
        }
    """
    model = ir.from_proto(onnx.parser.parse_model(text.replace("SECOND", "y")))
    assert verify_equal(model, model.clone()) == 0
    with pytest.raises(VerificationError, match="output 's'"):
        verify_equal(model, ir.from_proto(onnx.parser.parse_model(text.replace("SECOND", "x"))))


def test_what_is_too_large_is_not_tried() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[1000000, 3, 10000, 10000] x) => (float[1000000, 3, 10000, 10000] y) { y = Relu(x) }
    """)
    with pytest.raises(ModelFileError, match="has the shape 1000000×3×10000×10000, so the model can't be run"):
        verify_equal(model, model)
    preprocessing = Preprocessing(size=10_000, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(ModelFileError, match="so the model can't be run on random inputs"):
        Reference(model, preprocessing=preprocessing)
