"""Files for TensorRT, and what its real parser and compiler make of them.

That the layers have int8 inputs is read from the build log of TensorRT for RTX; no GPU runs them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from rexport._errors import ModelFileError
from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import TENSORRT, X86, quantize
from rexport.runtimes.onnxruntime import open_session
from tests._graphs import convolution, graph, named, vector
from tests.quantization._rtx import build_engine, types_of_products
from tests.quantization._tables import exported, pictures, sqnr_db, table_of

if TYPE_CHECKING:
    from rexport.quantization import QuantizedModel, Target

_NETWORKS = [
    "cifar_resnet8",
    "cifar_preact_resnet8",
    "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]",
    "resnet[depth=11,stages=3,block=bottleneck,stem=deep,downsample=pool,stem_width=16,input_size=32]",
]
_PAD = "<pads=[1,1,1,1]>"


def _quantized(name: str, target: Target = TENSORRT) -> QuantizedModel:
    model = exported(name)
    return quantize(model, calibrate(model, [pictures(8)]), target=target)


def _integer_products(result: QuantizedModel) -> set[str]:
    return {
        layer.name
        for layer in result.layers
        if layer.precision == "int8" and layer.op_type in ("Conv", "ConvTranspose", "Gemm")
    }


def _nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


@pytest.mark.slow
@pytest.mark.parametrize("target", [TENSORRT, TENSORRT.with_float16()], ids=["int8", "int8+fp16"])
@pytest.mark.parametrize("name", _NETWORKS)
def test_the_compiler_gives_every_convolution_integers(name: str, target: Target) -> None:
    result = _quantized(name, target)
    products = _integer_products(result)
    assert products == {node.name for node in result.model.graph if node.op_type in ("Conv", "Gemm")}
    layers = build_engine(result.model)
    assert set(types_of_products(layers, products).values()) == {"Int8"}
    types = {dtype for layer in layers for dtype in layer.outputs}
    assert ("Half" in types) is (target is not TENSORRT)


@pytest.mark.parametrize("name", _NETWORKS)
def test_float16_beside_it_costs_no_accuracy(name: str) -> None:
    model, x = exported(name), pictures(4)
    (exact,) = open_session(to_bytes(model)).run(None, {"images": x})
    plain, half = (
        sqnr_db(exact, open_session(to_bytes(_quantized(name, target).model)).run(None, {"images": x})[0])
        for target in (TENSORRT, TENSORRT.with_float16())
    )
    assert plain > 20
    # scales are at most 1 % coarser, and float16 rounds by 5e-4: 0.4 to 1.9 dB were measured
    assert half > plain - 2.5


@pytest.mark.slow
def test_raw_images_are_accepted() -> None:
    raw = with_raw_images(exported("cifar_resnet8"), Preprocessing(size=32))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    result = quantize(raw, calibrate(raw, [pixels]), target=TENSORRT)
    assert set(types_of_products(build_engine(result.model), _integer_products(result)).values()) == {"Int8"}


# rule by rule


def test_zero_points_are_zero_and_scales_of_tensors_have_no_dimension() -> None:
    model = _quantized("cifar_resnet8").model
    for node in [*_nodes(model, "QuantizeLinear"), *_nodes(model, "DequantizeLinear")]:
        numbers, scale, zero_point = node.inputs
        assert scale is not None
        assert zero_point is not None
        assert zero_point.const_value is not None
        assert not zero_point.const_value.numpy().any()
        assert zero_point.dtype == ir.DataType.INT8
        assert scale.shape is not None
        is_weight = numbers is not None and numbers.const_value is not None
        assert len(scale.shape) == (1 if is_weight else 0)


def test_biases_are_floats() -> None:
    model = _quantized("cifar_resnet8").model
    for node in [*_nodes(model, "Conv"), *_nodes(model, "Gemm")]:
        for bias in node.inputs[2:]:
            assert bias is not None
            assert bias.const_value is not None
            assert bias.dtype == ir.DataType.FLOAT


def test_nothing_stands_between_a_convolution_the_sum_and_the_relu() -> None:
    model = _quantized("cifar_resnet8").model
    for add in _nodes(model, "Add"):
        kinds = sorted(str(value.producer().op_type) for value in add.inputs if value is not None and value.producer())
        assert kinds == ["Conv", "DequantizeLinear"]  # the identity's alone
        assert [reader.op_type for reader in add.outputs[0].consumers()] == ["Relu"]
    for relu in _nodes(model, "Relu"):
        source = relu.inputs[0]
        assert source is not None
        assert source.producer() is not None
        assert source.producer().op_type in ("Conv", "Add")  # type: ignore[union-attr]


@pytest.mark.parametrize(("op_type", "axis"), [("Conv", 0), ("ConvTranspose", 1)])
def test_weights_have_a_scale_per_output_channel(op_type: str, axis: int) -> None:
    weight = convolution(8, 4) if op_type == "Conv" else np.moveaxis(convolution(8, 4), 0, 1).copy()
    body = f"a = Conv {_PAD} (x, v) b = {op_type} {_PAD} (a, w, c) y = Tanh (b)"
    model = named(graph(body, {"v": convolution(4, 3), "w": weight, "c": vector(8)}))
    result = quantize(model, table_of(model, x=(-3.0, 3.0), a=(-3.0, 3.0)), target=TENSORRT)
    (layer,) = (node for node in result.model.graph if node.name == "b")
    dequantize = layer.inputs[1].producer()  # type: ignore[union-attr]
    assert dequantize is not None
    assert dequantize.attributes.get_int("axis", 1) == axis
    assert list(dequantize.inputs[1].shape) == [8]  # type: ignore[union-attr, arg-type]
    types = types_of_products(build_engine(result.model), {"a", "b"})
    # TensorRT for RTX 1.7 reads the file, but has no transposed convolution of integers, whatever the scales are like
    assert types == {"a": "Int8", "b": "Int8" if op_type == "Conv" else "Float"}


def test_a_model_whose_opset_has_no_scales_in_float16_is_refused() -> None:
    model = graph(f"a = Conv {_PAD} (x, w) y = Tanh (a)", {"w": convolution(3, 3)}, opset=17)
    with pytest.raises(ModelFileError, match="has opset 17, and the target tensorrt needs 19"):
        quantize(model, table_of(model, x=(-1.0, 1.0)), target=TENSORRT.with_float16())


def test_a_tensor_too_large_for_float16_stays_in_float32() -> None:
    body = f"a = Conv {_PAD} (x, v) b = Sigmoid (a) c = Conv {_PAD} (b, w) y = Tanh (c)"
    model = graph(body, {"v": convolution(4, 3), "w": convolution(4, 4)}, opset=20)
    table = table_of(model, x=(-3.0, 3.0), a=(-9e4, 9e4), b=(0.0, 1.0), c=(-3.0, 3.0))
    result = quantize(model, table, target=TENSORRT.with_float16())
    (sigmoid,) = (layer for layer in result.layers if layer.op_type == "Sigmoid")
    assert sigmoid.precision == "float32"
    assert "'a' reaches 90,000, and float16 ends at 65,504" in sigmoid.why
    build_engine(result.model)


# that a file which breaks a rule is seen


@pytest.mark.slow
def test_a_scale_with_a_dimension_is_seen() -> None:
    model = _quantized("cifar_resnet8").model
    scale = next(node for node in model.graph if node.name == "layer1.0.conv1").inputs[0].producer().inputs[1]  # type: ignore[union-attr]
    assert scale is not None
    assert scale.const_value is not None
    scale.const_value = ir.tensor(scale.const_value.numpy().reshape(1), name=scale.name)
    scale.shape = ir.Shape([1])
    types = types_of_products(build_engine(model), {"layer1.0.conv1", "layer2.0.conv1"})
    assert types["layer1.0.conv1"] == "Float"


def test_files_of_other_targets_are_refused() -> None:
    model = exported("cifar_resnet8")
    with pytest.raises(ModelFileError, match=r"shiftIsAllZeros|must have type"):
        build_engine(quantize(model, calibrate(model, [pictures(2)]), target=X86).model)
