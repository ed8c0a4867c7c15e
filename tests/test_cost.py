from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport.calibration import calibrate
from rexport.cost import macs_of, operations_of, parameters_of, tensor_shapes, total_macs
from rexport.exporting import export
from rexport.model_file import save
from rexport.models import build, registry
from rexport.passes.regroup import Regroup
from rexport.preprocessing import Preprocessing
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, quantize
from tests._graphs import convolution, graph, vector
from tests._networks import export_once, torchscript_export
from tests.exporting._networks import Small
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from tests._products import Products

_GROUPED = "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_resnet50_has_the_macs_that_are_published() -> None:
    macs = total_macs(torchscript_export(build("resnet50"), size=224))
    assert macs == registry.find("resnet50").summary().macs
    assert macs == 4_089_184_256  # 4.09 G, as torchvision documents


@pytest.mark.slow
def test_macs_grow_with_the_picture(products: Products) -> None:
    model = export_once(products, "cifar_resnet8", any_size=True).model
    macs = total_macs(model)
    assert macs is not None
    assert total_macs(model, size=64) == pytest.approx(4 * macs, rel=0.0005)  # the last layer does not grow


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("cifar_resnet8", X86),
        ("cifar_resnet8", ARM),
        ("cifar_resnet8", OPENVINO),
        ("cifar_resnet8", TENSORRT),
        pytest.param(_GROUPED, X86, marks=pytest.mark.slow),
    ],
)
def test_a_quantized_file_has_those_of_its_float_file(name: str, target: object) -> None:
    model = exported(name)
    result = quantize(model, calibrate(model, [pictures(2)]), target=target)  # type: ignore[arg-type]
    assert macs_of(result.model) == macs_of(model)
    assert None not in macs_of(model).values()


@settings(max_examples=30)
@given(
    groups=st.integers(1, 4),
    into=st.integers(1, 3),
    out=st.integers(1, 3),
    side=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    size=st.integers(5, 20),
    batch=st.sampled_from(["N", 1, 4]),
)
def test_convolutions_by_their_formula(
    groups: int, into: int, out: int, side: int, stride: int, size: int, batch: int | str
) -> None:
    weights = {"s": convolution(groups * into, 3, 1), "w": convolution(groups * out, into, side)}
    model = graph(
        f"a = Conv(x, s) y = Conv<group={groups}, strides=[{stride},{stride}]>(a, w)",
        weights,
        inputs=f"float[{batch}, 3, S, S] x",
    )
    places = ((size - side) // stride + 1) ** 2
    expected = [groups * into * 3 * size**2, groups * out * into * side**2 * places]
    assert list(macs_of(model, size=size).values()) == expected
    assert total_macs(model, size=size) == sum(expected)


def test_products_count_rows_and_columns_whichever_way_they_are_stored() -> None:
    body = "p = GlobalAveragePool(x) f = Flatten(p) g = Gemm(f, w, b) t = Gemm<transB=1>(g, v) y = MatMul(t, u)"
    weights = {"w": np.zeros((3, 5), np.float32), "b": vector(5)}
    weights |= {"v": np.zeros((7, 5), np.float32), "u": np.zeros((7, 2), np.float32)}
    model = graph(body, weights, outputs="float[N, 2] y")
    assert macs_of(model) == {"g": 15, "t": 35, "y": 14}
    operations = operations_of(model)
    assert (operations["p"], operations["f"], operations["g"]) == (3, 3, 15)


def test_a_transposed_convolution_counts_what_it_reads() -> None:
    weights = {"w": np.zeros((3, 5, 2, 2), np.float32)}
    model = graph("y = ConvTranspose<strides=[2,2]>(x, w)", weights)
    assert macs_of(model) == {"y": 3 * 16 * 16 * 5 * 4}


def test_integer_operators_count_too() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]>
        g (float[N, 3, 8, 8] x) => (uint8[N, 4, 8, 8] y)
        <float s = {0.1}, uint8 z = {0}, uint8 wz = {0}, uint8[4, 3, 1, 1] w = {1,1,1,1,1,1,1,1,1,1,1,1}> {
            q = QuantizeLinear(x, s, z)
            y = QLinearConv(q, s, z, w, s, wz, s, z)
        }""")
    assert macs_of(ir.from_proto(proto)) == {"y": 4 * 3 * 64}


@pytest.mark.slow
def test_raw_images_count_the_fourth_channel_and_pictures_are_cut_first() -> None:
    module = Small()
    preprocessing = Preprocessing(size=32, resize=36)
    plain = total_macs(export(module, preprocessing=preprocessing).model)
    assert plain is not None
    fourth = 8 * 32 * 32 * 9
    for whole in (False, True):
        model = export(module, preprocessing=preprocessing, raw_image=True, resize_in_graph=whole).model
        assert total_macs(model) == plain + fourth, whole


@pytest.mark.slow
def test_zeros_of_merged_groups_count() -> None:
    model = exported(_GROUPED)
    before = macs_of(model)
    Regroup(lambda _: 2)(model)
    after = macs_of(model)
    grouped = [name for name in before if before[name] != after[name]]
    assert len(grouped) == 3
    assert all(after[name] == 2 * (before[name] or 0) for name in grouped)


def test_an_unknown_shape_is_no_number() -> None:
    body = "i = NonZero(x) k = Shape(i) n = Slice(k, a, b) c = ConstantOfShape(n) d = Unsqueeze(c, u) y = MatMul(d, d)"
    constants = {"a": np.array([1]), "b": np.array([2]), "u": np.array([0])}
    model = graph(body, constants, outputs="float[A, B] y")
    assert macs_of(model) == {"y": None}
    assert total_macs(model) is None


def test_shapes_are_of_one_picture_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    model = exported("cifar_resnet8")
    shapes = tensor_shapes(model, 32)
    assert (shapes["images"], shapes["layer3.0.relu"], shapes["logits"]) == ((1, 3, 32, 32), (1, 64, 8, 8), (1, 10))
    save(model, tmp_path / "m.onnx")  # and the model stays as it was: its batch is open
    assert str(model.graph.inputs[0].shape) == "[batch,3,32,32]"


_TWO_LAYERS = """c = Conv <pads = [1, 1, 1, 1]> (x, w, b) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm (f, m)"""
_WEIGHTS = {"w": convolution(4, 3), "b": vector(4), "m": np.zeros((4, 5), np.float32)}
_STATED = "float[4, 3, 3, 3] w, float[4] b, float[4, 5] m"


@pytest.mark.parametrize(
    ("inputs", "weights"),
    [
        ("float[N, 3, 16, 16] x", _WEIGHTS),
        (f"float[N, 3, 16, 16] x, {_STATED}", _WEIGHTS),
        (f"float[N, 3, 16, 16] x, {_STATED}", {}),
        (f"{_STATED}, float[N, 3, 16, 16] x", {}),
    ],
    ids=["initializers", "inputs too", "inputs alone", "inputs before the pictures"],
)
def test_weights_count_wherever_they_come_from(inputs: str, weights: dict[str, np.ndarray]) -> None:
    model = graph(_TWO_LAYERS, weights, inputs=inputs, outputs="float[N, 5] y")
    assert parameters_of(model) == {"c": 4 * 3 * 9 + 4, "y": 20}
    assert macs_of(model) == {"c": 4 * 16 * 16 * 27, "y": 20}


def test_products_of_what_comes_from_pictures_have_no_parameters() -> None:
    model = graph("t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul(x, t)", outputs="float[N, 3, 16, 16] y")
    assert parameters_of(model) == {"y": 0}


def test_a_weight_of_unknown_shape_is_no_number() -> None:
    model = graph("y = MatMul(x, w)", inputs="float[N, 8] x, float[8, K] w", outputs="float[N, K] y")
    assert parameters_of(model) == {"y": None}


def test_other_inputs_than_pictures_count_for_one_example() -> None:
    model = graph("y = Conv(x, w)", {"w": np.zeros((2, 1, 3, 3), np.float32)}, inputs="float[4, 1, 8, 10] x")
    assert macs_of(model) == {"y": 2 * 6 * 8 * 9}
