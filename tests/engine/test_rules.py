"""Each rule of TensorRT: a file that breaks it, what is changed, that the numbers stay, and the real compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from rexport._errors import ModelFileError
from rexport.calibration import calibrate
from rexport.engine.rules import RULES, follow_rules
from rexport.model_file import to_bytes
from rexport.passes._graph import constant, is_op, replace_initializer
from rexport.passes.float16 import with_float16
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import TENSORRT, X86, quantize
from tests._graphs import run
from tests.quantization._rtx import build_engine, types_of_products
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

_LAYER = "layer1.0.conv1"


@pytest.fixture
def model() -> ir.Model:
    """An INT8 file that keeps all rules."""
    network = exported("cifar_resnet8")
    return quantize(network, calibrate(network, [pictures(8)]), target=TENSORRT).model


def _node(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def _producer(node: ir.Node, index: int) -> ir.Node:
    value = node.inputs[index]
    assert value is not None
    producer = value.producer()
    assert producer is not None
    return producer


def _scores(model: ir.Model) -> np.ndarray:
    """Return what ONNX Runtime computes node by node, without kernels of integers that another form may not get."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(None, {"images": pictures(4)})[0]
    return scores


def _int32_bias(model: ir.Model) -> None:
    node = _node(model, _LAYER)
    bias = constant(node.inputs[2])
    assert bias is not None
    scale = np.float32(2.0**-16)
    replace_initializer(node, 2, np.rint(bias / scale).astype(np.int32), name="q")
    stored = node.inputs[2]
    scale_value = ir.Value(name="s", const_value=ir.tensor(scale, name="s"), shape=ir.Shape([]))
    model.graph.register_initializer(scale_value)
    dequantize = ir.node("DequantizeLinear", [stored, scale_value], name="bias_dq")
    dequantize.outputs[0].name = "bias_float"
    model.graph.insert_before(node, dequantize)
    node.replace_input_with(2, dequantize.outputs[0])


def _scale_with_a_dimension(model: ir.Model) -> None:
    dequantize = _producer(_node(model, _LAYER), 0)
    for node in (dequantize, _producer(dequantize, 0)):
        for index in (1, 2):
            array = constant(node.inputs[index])
            assert array is not None
            replace_initializer(node, index, array.reshape(1), name=f"{node.name}_{index}")


def _uint8_in_the_middle(model: ir.Model) -> None:
    dequantize = _producer(_node(model, _LAYER), 0)
    for node in (dequantize, _producer(dequantize, 0)):
        replace_initializer(node, 2, np.uint8(128), name=f"{node.name}_zero")
    quantize = _producer(dequantize, 0)
    quantize.outputs[0].type = ir.TensorType(ir.DataType.UINT8)


def _quantized_before_the_sum(model: ir.Model) -> None:
    convolution = _node(model, "layer1.0.conv2")
    (add,) = convolution.outputs[0].consumers()
    like = _producer(_node(model, _LAYER), 0)
    quantize = ir.node("QuantizeLinear", [convolution.outputs[0], *like.inputs[1:]], name="between_q")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *like.inputs[1:]], name="between_dq")
    quantize.outputs[0].name, dequantize.outputs[0].name = "between_q", "between_dq"
    model.graph.insert_before(add, [quantize, dequantize])
    index = list(add.inputs).index(convolution.outputs[0])
    add.replace_input_with(index, dequantize.outputs[0])


def test_a_file_that_keeps_all_rules_is_left_as_it_is(model: ir.Model) -> None:
    kept, repairs = follow_rules(model)
    assert repairs == ()
    assert ir.to_proto(kept) == ir.to_proto(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "breaks", "exactly"),
    [
        ("bias-in-float", _int32_bias, True),
        ("scalar-scale", _scale_with_a_dimension, True),
        ("symmetric", _uint8_in_the_middle, True),
        ("nothing-in-between", _quantized_before_the_sum, False),  # a rounding less
    ],
)
def test_a_broken_rule_is_kept_by_a_change_that_means_the_same(
    model: ir.Model, rule: str, breaks: Callable[[ir.Model], None], exactly: bool
) -> None:
    whole = model.clone()
    breaks(model)
    kept, repairs = follow_rules(model)
    assert {repair.rule for repair in repairs} == {rule}
    before, after = _scores(model if exactly else whole), _scores(kept)
    # of another order of the same sums, a rounding to the next integer may follow: 3e-3 was seen
    assert np.abs(before - after).max() <= 1e-2 * np.abs(before).max()
    types = types_of_products(build_engine(kept), {_LAYER, "layer1.0.conv2", "layer2.0.conv1"})
    assert set(types.values()) == {"Int8"}


@pytest.mark.slow
def test_without_the_change_the_compiler_refuses_or_computes_in_float(model: ir.Model) -> None:
    """So that a rule which is no longer needed is noticed."""
    for breaks in (_int32_bias, _uint8_in_the_middle):
        broken = model.clone()
        breaks(broken)
        try:
            types = types_of_products(build_engine(broken), {_LAYER})
        except ModelFileError:
            continue
        assert breaks is _uint8_in_the_middle, types  # some versions read it; not as we mean it
    broken = model.clone()
    _scale_with_a_dimension(broken)
    assert types_of_products(build_engine(broken), {_LAYER}) == {_LAYER: "Float"}


def test_scales_along_the_inputs_are_refused(model: ir.Model) -> None:
    dequantize = _producer(_node(model, _LAYER), 1)
    dequantize.attributes.add(ir.AttrInt64("axis", 1))
    with pytest.raises(ModelFileError, match=rf"can't take {_LAYER} \(rule axis-of-outputs\): .* axis 1, .* axis 0;"):
        follow_rules(model)


def test_scales_along_the_inputs_that_are_all_the_same_are_moved(model: ir.Model) -> None:
    dequantize = _producer(_node(model, _LAYER), 1)
    scale = constant(dequantize.inputs[1])
    assert scale is not None
    replace_initializer(dequantize, 1, np.full_like(scale, scale.max()), name="same")
    dequantize.attributes.add(ir.AttrInt64("axis", 1))
    kept, (repair,) = follow_rules(model)
    assert repair.rule == "axis-of-outputs"
    assert np.array_equal(_scores(kept), _scores(model))


def test_a_zero_point_is_refused() -> None:
    network = exported("cifar_resnet8")
    with pytest.raises(ModelFileError, match=r"images_quantized \(rule symmetric\): it is uint8 with zero point"):
        follow_rules(quantize(network, calibrate(network, [pictures(2)]), target=X86).model)


def test_of_two_convolutions_the_shortcut_keeps_its_integers(model: ir.Model) -> None:
    shortcuts = [node for node in model.graph if is_op(node, "Conv") and "downsample" in str(node.name)]
    assert shortcuts
    kept, _ = follow_rules(model)
    for node in shortcuts:
        (reader,) = _node(kept, str(node.name)).outputs[0].consumers()
        assert reader.op_type == "QuantizeLinear"


def test_every_rule_is_told_of() -> None:
    import rexport.engine.rules as rules

    assert rules.__doc__ is not None
    assert all(rule in rules.__doc__ for rule in RULES)


@pytest.mark.parametrize("half", [False, True])
def test_pixels_in_float(half: bool) -> None:
    raw = with_raw_images(exported("cifar_resnet8"), Preprocessing(size=32))
    model = with_float16(raw).model if half else raw
    kept, repairs = follow_rules(model)
    assert [repair.rule for repair in repairs] == ["pixels-in-float"]
    first = next(node for node in kept.graph if any(value in kept.graph.inputs for value in node.inputs))
    assert (first.op_type, first.outputs[0].dtype) == ("Cast", ir.DataType.FLOAT16 if half else ir.DataType.FLOAT)
    assert not any(is_op(node, "DequantizeLinear") and node.inputs[0].producer() for node in kept.graph)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(run(kept, pixels)[0], run(model, pixels)[0])
