from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.calibration import calibrate
from rexport.model_file import Metadata, model_hash, to_bytes
from rexport.models import build
from rexport.passes import fuse
from rexport.passes._graph import constant
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, quantize, recover
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, images, run, vector
from tests._networks import trained_like
from tests.quantization._tables import exported, pictures, sqnr_db, table_of

if TYPE_CHECKING:
    from rexport.quantization import Target

_NETWORKS = {
    "cifar_resnet8": 9,  # two of them are shortcuts of option A
    "cifar_plain8": 7,
    "cifar_preact_resnet8": 13,  # four of them are BatchNormalization between an addition and a ReLU
    "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]": 13,
    "resnet[depth=11,stages=3,block=bottleneck,stem=deep,downsample=pool,stem_width=16,input_size=32]": 14,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "convolutions"), _NETWORKS.items())
def test_every_convolution_runs_on_integers_and_the_logits_stay(name: str, convolutions: int) -> None:
    model = exported(name)
    table = calibrate(model, [pictures(32)])
    result = quantize(model, table, target=X86)
    executed = executed_ops(to_bytes(result.model))
    assert executed["QLinearConv"] == convolutions
    assert not executed["Conv"]
    assert not executed["FusedConv"]
    x = pictures(16)
    expected, actual = run(model, x)[0], run(result.model, x)[0]
    # Untrained, so the logits of all images are much alike, and only their scale can be checked: a wrong zero point or
    # scale anywhere is off by all of it. What INT8 costs is measured on trained networks (tests/cli/test_pipeline.py).
    assert np.square(actual - expected).mean() < 0.05 * np.square(expected).mean()


def test_the_float_model_is_left_as_it_was() -> None:
    model = exported("cifar_resnet8")
    before = model_hash(model)
    quantize(model, calibrate(model, [pictures(4)]), target=X86)
    assert model_hash(model) == before


def test_the_file_says_how_it_was_made() -> None:
    model = exported("cifar_resnet8")
    result = quantize(model, calibrate(model, [pictures(4)]), target=X86)
    described = json.loads(str(Metadata.of(result.model).quantization))
    assert (described["target"], described["calibration_images"]) == ("x86", 4)
    assert described["float_model_sha256"] == model_hash(model)
    assert described["float_layers"] == {}


def test_one_convolution_by_hand() -> None:
    weights = {"w": convolution(3, 3), "b": vector(3)}
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w, b) r = Relu (a) y = Sigmoid (r)", weights)
    result = quantize(model, table_of(model, x=(-2.0, 3.1), r=(0.0, 5.1)), target=X86).model
    nodes = [node.op_type for node in result.graph]
    assert sorted(nodes) == sorted(
        ["QuantizeLinear", "DequantizeLinear"] * 2 + ["DequantizeLinear"] * 2 + ["Conv", "Relu", "Sigmoid"]
    )
    stored = {name: value.const_value.numpy() for name, value in result.graph.initializers.items() if value.const_value}
    (bias,) = (array for array in stored.values() if array.dtype == np.int32 and array.any())
    (weight,) = (array for array in stored.values() if array.dtype == np.int8 and array.ndim == 4)
    assert np.abs(weight).max() == 127
    # the bias has the scale of the products it is added to: only then does ONNX Runtime take its integer kernel
    products = np.float64(np.float32(5.1 / 255)) * (np.abs(weights["w"]).reshape(3, -1).max(axis=1) / 127)
    np.testing.assert_allclose(bias * products, weights["b"], atol=products.max())
    assert executed_ops(to_bytes(result))["QLinearConv"] == 1
    x = images(2).clip(-2.0, 3.1)
    assert np.abs(run(result, x)[0] - run(model, x)[0]).max() < 0.02


def test_feature_maps_keep_their_names_and_their_convolutions_run_on_integers() -> None:
    """One map is read further inside the network, and is the sum of a residual block."""
    body = "a = Conv <pads=[1,1,1,1]> (x, w) s = Add (a, x) f = Relu (s) g = Conv <pads=[1,1,1,1]> (f, v)"
    weights = {"w": convolution(3, 3), "v": convolution(3, 3, seed=1)}
    model = graph(body, weights, outputs="float[N, 3, 16, 16] f, float[N, 3, 16, 16] g")
    x = images(8)
    result = quantize(model, calibrate(model, [x]), target=X86).model
    assert [value.name for value in result.graph.outputs] == ["f", "g"]
    executed = executed_ops(to_bytes(result))
    assert (executed["QLinearConv"], executed["QLinearAdd"]) == (2, 1)
    assert not executed["Conv"]
    for expected, actual in zip(run(model, x), run(result, x), strict=True):
        assert sqnr_db(expected, actual) > 30


def test_a_table_of_another_model_is_refused() -> None:
    model, other = exported("cifar_resnet8"), exported("cifar_preact_resnet8")
    with pytest.raises(UsageError, match="calibration table is of another model"):
        quantize(model, calibrate(other, [pictures(2)]), target=X86)


def test_a_tensor_without_a_range_is_named() -> None:
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w) y = Sigmoid (a)", {"w": convolution(3, 3)})
    with pytest.raises(DataError, match="no statistics of the tensor 'a'"):
        quantize(model, table_of(model, x=(-1.0, 1.0)), target=X86)


def test_a_quantized_model_is_refused() -> None:
    model = exported("cifar_resnet8")
    result = quantize(model, calibrate(model, [pictures(2)]), target=X86).model
    with pytest.raises(ModelFileError, match="quantized already"):
        quantize(result, table_of(result), target=X86)


def test_an_opset_without_scales_per_channel_is_refused() -> None:
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w) y = Sigmoid (a)", {"w": convolution(3, 3)}, opset=11)
    with pytest.raises(ModelFileError, match="needs 13 or later"):
        quantize(model, table_of(model, x=(-1.0, 1.0), a=(-1.0, 1.0)), target=X86)


@pytest.mark.parametrize("reduced", [False, True])
def test_integers_of_weights_stay_in_their_range(reduced: bool) -> None:
    model = exported("cifar_resnet8")
    target = X86.with_reduced_range() if reduced else X86
    result = quantize(model, calibrate(model, [pictures(2)]), target=target).model
    largest = {
        int(np.abs(value.const_value.numpy().astype(int)).max())
        for value in result.graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.INT8 and len(value.const_value.shape) > 1
    }
    assert largest == {64 if reduced else 127}


@pytest.mark.slow
def test_an_ensemble_keeps_its_softmax_in_float() -> None:
    name = "cifar_resnet8+cifar_plain8"
    module, model = trained_like(build(name, seed=0)), exported(name)
    result = quantize(model, calibrate(model, [pictures(16)]), target=X86)
    assert {layer.op_type for layer in result.layers if layer.precision != "int8"} == {"Softmax", "Add", "Div"}
    with torch.inference_mode():
        expected = module(torch.from_numpy(pictures(8))).numpy()
    assert np.abs(run(result.model, pictures(8))[0] - expected).max() < 0.1


def test_metadata_of_the_float_model_is_kept() -> None:
    model = exported("cifar_resnet8")
    replace(Metadata.of(model), classes=tuple("abcdefghij")).write_to(model)
    result = quantize(model, calibrate(model, [pictures(2)]), target=X86).model
    assert Metadata.of(result).classes == tuple("abcdefghij")
    assert Metadata.of(result).preprocessing == Metadata.of(model).preprocessing


_SENTENCES = {
    "nan": (convolution(3, 3) * np.float32(np.nan), vector(3), "The weight of a has values that are not finite"),
    "infinite": (convolution(3, 3), vector(3) * np.float32(np.inf), "The bias of a has values that are not finite"),
    "too large": (
        convolution(3, 3),
        np.float32([1e38, 0, 0]),
        "The bias of a is too large for int32",
    ),
}


@pytest.mark.parametrize(("weight", "bias", "sentence"), _SENTENCES.values(), ids=_SENTENCES)
def test_weights_that_no_integers_stand_for_are_refused(weight: np.ndarray, bias: np.ndarray, sentence: str) -> None:
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w, b) y = Sigmoid (a)", {"w": weight, "b": bias})
    table = table_of(model, x=(0.0, 1e-30), a=(-1.0, 1.0))
    for job in (quantize, recover):
        with pytest.raises(ModelFileError, match=sentence):
            job(model, table, target=X86)
    quantize(model, table, target=X86, keep_float={"a"})


_EXTREMES = [(0.0, 0.0), (-1e-44, 1e-45), (0.0, 1e-30), (-3e38, 3.4e38), (5.0, 6.0), (-6.0, -5.0), (0.0, 1e-3)]


@pytest.mark.parametrize("target", [X86, ARM, OPENVINO, TENSORRT], ids=lambda target: target.name)
@pytest.mark.parametrize("ends", _EXTREMES)
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-20, 1.0, 1e20])
def test_whatever_the_sizes_of_numbers_the_file_loads(target: Target, ends: tuple[float, float], scale: float) -> None:
    weights = {"w": convolution(1, 3) * np.float32(scale), "b": np.float32([1e-6]), "v": convolution(3, 1)}
    weights["v"][1] = 0
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w, b) r = Relu (a) y0 = Conv (r, v) y = Tanh (y0)", weights)
    table = table_of(model, x=ends, r=(0.0, ends[1]), y0=ends)
    if scale * ends[1] > 1e40:
        with pytest.raises(ModelFileError, match="The products of the input and the weight of a overflow float32"):
            quantize(model, table, target=target)
        return
    result = quantize(model, table, target=target).model
    for node in result.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            steps, zero_point = (constant(value) for value in node.inputs[1:3])
            assert np.isfinite(steps).all()
            assert (steps >= np.finfo(np.float32).tiny).all()
            assert zero_point.dtype in (np.int8, np.uint8, np.int32)
    assert np.isfinite(run(result, images(2))[0]).all()


def test_an_empty_weight_stays_float() -> None:
    weights = {"w": convolution(3, 3), "v": np.zeros((0, 3, 1, 1), np.float32)}
    model = graph("a = Conv (x, w) e = Conv (a, v) y = Concat <axis=1> (a, e)", weights)
    ranges = dict.fromkeys(("x", "a", "e"), (-1.0, 1.0))
    table = table_of(model, **ranges)
    result = quantize(model, table, target=X86, recovered=recover(model, table, target=X86))
    assert {layer.name: layer.why for layer in result.layers}["e"] == "its weight is empty"


@pytest.mark.parametrize("name", ["", "b"])
def test_layers_of_one_name_are_told_apart(name: str) -> None:
    weights = {"w": convolution(3, 3), "v": convolution(3, 3, seed=1), "u": convolution(3, 3, seed=2)}
    pad, x = "<pads=[1,1,1,1]>", images(8)
    model = graph(f"a = Conv {pad} (x, w) b = Conv {pad} (a, v) c = Conv {pad} (b, u) y = Tanh (c)", weights)
    for node, given in zip(model.graph, ["a", name, "b", "y"], strict=True):  # what gives b has no name, or c's
        node.name = given
    table = calibrate(model, [x])
    recovered = recover(model, table, target=X86, images=lambda: [x], total=8)
    result = quantize(model, table, target=X86, recovered=recovered)
    # three layers of 27 products, of numbers with 7 bits behind the comma: 30 dB and more; other weights leave none
    named = fuse(model, passes=[]).model  # two of one name ONNX Runtime would refuse
    assert sqnr_db(run(named, x)[0], run(result.model, x)[0]) > 25
    names = [layer.name for layer in result.layers]
    assert len(set(names)) == len(names)
    second = names[1]
    kept = quantize(model, table, target=X86, keep_float={second})
    assert [layer.name for layer in kept.layers if layer.precision != "int8"] == [second, "y"]
