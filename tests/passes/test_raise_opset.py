"""Newer opsets, with a proof. What ONNX Runtime computes of the old file is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rexport._errors import ModelFileError, VerificationError
from rexport.model_file import default_opset, model_hash, with_opset
from rexport.passes import Reference, verify_equal
from rexport.passes._graph import constant
from rexport.passes.raise_opset import raise_opset
from tests.passes._models import ops, parse


def old(body: str, *, opset: int, constants: str = "") -> ir.Model:
    """Return a model of four channels, 6 × 6."""
    return parse(f"""
        <ir_version: 8, opset_import: ["": {opset}], metadata_props: ["rexport.network": "n"]>
        g (float[N, 4, 6, 6] x) => (float[N, A, B, C] y) <{constants}> {{ {body} }}""")


ONES = "float[4] k = {1, 1, 1, 1}"
DOUBLE = "float[4] s = {1, 1, 2, 2}"
CASES = [
    # attributes became inputs
    ("a, b = Split<axis = 1, split = [1, 3]>(x)  y = Concat<axis = 1>(b, a)", 11, ""),
    ("a = ReduceSum<axes = [1], keepdims = 0>(x)  y = Unsqueeze<axes = [1]>(a)", 12, ""),
    ("p = GlobalAveragePool(x)  a = Squeeze<axes = [3]>(p)  y = Unsqueeze<axes = [0]>(a)", 11, ""),
    ("y = Slice<axes = [2, 3], starts = [1, 1], ends = [-1, 9]>(x)", 9, ""),
    ("y = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 3.0>(x)", 10, ""),
    ("y = Clip<min = 0.0, max = 0.6>(x)", 10, ""),
    ("y = Clip<max = 0.6>(x)", 6, ""),
    ("y = Dropout<ratio = 0.3>(x)", 7, ""),
    # other defaults, other attributes
    ("y = Softmax<axis = 1>(x)", 12, ""),
    ("y = LogSoftmax<axis = 2>(x)", 11, ""),
    ("y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", 7, ""),
    ("y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1, count_include_pad = 1>(x)", 10, ""),
    ("y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", 1, ""),
    ("y = BatchNormalization<spatial = 1>(x, k, k, k, k)", 8, "float[4] k = {1, 2, 3, 4}"),
    # other places of samples
    ('y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]>(x)', 7, ""),
    ('y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)', 7, ""),
    ('y = Upsample<mode = "nearest">(x, s)', 9, DOUBLE),
    ('y = Upsample<mode = "linear">(x, s)', 9, DOUBLE),
    ('y = Upsample<mode = "nearest">(x, s)', 9, "float[4] s = {1, 1, 1.5, 1.5}"),
    ('y = Resize<mode = "nearest">(x, s)', 10, DOUBLE),
    ('y = Resize<mode = "nearest">(x, s)', 10, "float[4] s = {1, 1, 0.5, 0.34}"),
    ('y = Resize<mode = "linear">(x, s)', 10, "float[4] s = {1, 1, 2, 0.6}"),
]


@pytest.mark.parametrize("at_least", [13, 20])
@pytest.mark.parametrize(("body", "opset", "constants"), CASES)
def test_the_results_stay(body: str, opset: int, constants: str, at_least: int) -> None:
    model = old(body, opset=opset, constants=constants)
    raised = raise_opset(model, at_least)
    assert default_opset(raised) == at_least
    assert verify_equal(model, raised, seed=1) < 1e-6
    assert raised.metadata_props == model.metadata_props
    assert "Constant" not in ops(raised)


def test_the_model_is_the_same_once_its_constants_are_looked_at() -> None:
    raised = raise_opset(old("y = Slice<axes = [2], starts = [1], ends = [4]>(x)", opset=9), 13)
    before = model_hash(raised)
    for model in (raised, raised.clone()):
        assert [constant(value) is None for node in model.graph for value in node.inputs] == [True, False, False, False]
    assert model_hash(raised) == before


def test_a_model_of_that_opset_is_itself() -> None:
    model = old("y = Relu(x)", opset=13)
    assert raise_opset(model, 13) is model


def test_functions_become_part_of_it() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 12, "own": 1]>
        g (float[N, 4] x) => (float[N, 4] y) { y = own.f(x) }
        <domain: "own", opset_import: ["": 12]> f (a) => (b) { b = Softmax<axis = 1>(a) }""")
    raised = raise_opset(model, 13)
    assert verify_equal(model, raised) < 1e-6
    assert not raised.functions
    assert model.functions


@pytest.mark.parametrize(
    ("body", "opset", "named"),
    [
        ("a = Relu(x)  y = Hardmax<axis = 1>(a)", 11, r"Hardmax \(y\)"),
        ('a = Relu(x)  b = Resize<mode = "nearest">(a, s)  y = Tanh(b)', 10, r"Resize \(b\)"),
    ],
)
def test_the_operator_that_becomes_another_is_named(body: str, opset: int, named: str) -> None:
    model = old(body, opset=opset, constants="float[4] s = {1, 1, 2, 0.4}" if opset == 10 else "")
    with pytest.raises(VerificationError, match=f"changes this model's results, at {named}; export it again with op"):
        raise_opset(model, 13)


def test_without_the_places_of_its_samples_an_upsample_is_another() -> None:
    model = old('y = Upsample<mode = "linear">(x, s)', opset=9, constants=DOUBLE)
    with pytest.raises(VerificationError):
        verify_equal(model, with_opset(model, 13))


def test_the_proof_is_against_the_reference_that_is_there() -> None:
    reference = Reference(old("y = Neg(x)", opset=12))
    with pytest.raises(VerificationError, match="changes this model's results, at Softmax;"):
        raise_opset(old("y = Softmax(x)", opset=12), 13, reference=reference)


def test_what_does_not_run_is_not_proven() -> None:
    with pytest.raises(ModelFileError, match=r"BatchNormalization\(6\).* from opset 6 to 13 can't be proven; export"):
        raise_opset(old("y = BatchNormalization<is_test = 1>(x, k, k, k, k)", opset=6, constants=ONES), 13)


def test_what_onnx_can_t_convert_is_refused() -> None:
    with pytest.raises(
        ModelFileError, match=r"opset 5 and can't be converted to 13 \(No Adapter From Version \$5 for Ca"
    ):
        raise_opset(old('y = Cast<to = "FLOAT">(x)', opset=5), 13)


def test_a_model_of_other_operators_is_refused() -> None:
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        ),
        opset_imports=[onnx.helper.make_opsetid("ai.onnx.ml", 3)],
    )
    with pytest.raises(ModelFileError, match=r"has no operators of ONNX itself, only of ai\.onnx\.ml; take a network"):
        raise_opset(ir.from_proto(proto), 13)


def test_what_a_later_step_adds_is_not_shared_with_the_old_model() -> None:
    model = old("k = Constant<value = float[1] {2}>()  y = Mul(x, k)", opset=9)
    before = model_hash(model)
    raised = raise_opset(model, 13)
    assert model_hash(model) == before
    np.testing.assert_array_equal(raised.graph.initializers["k"].const_value.numpy(), [2])
