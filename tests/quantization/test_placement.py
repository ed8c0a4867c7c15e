"""Which operators become integer, rule by rule."""

from __future__ import annotations

import numpy as np
import pytest

from rexport.quantization.placement import place
from rexport.quantization.targets import ARM, OPENVINO, TENSORRT, X86, Target
from tests._graphs import convolution, graph, vector

_W = {"w": convolution(3, 3), "w2": convolution(3, 3, seed=1)}
_PAD = "<pads=[1,1,1,1]>"


def _places(
    body: str, weights: dict[str, np.ndarray] | None = None, *, target: Target = X86, **options: str
) -> tuple[dict[str, str], set[str]]:
    """Return why each layer is integer or float, by its operator's type, and the tensors that are stored."""
    placement = place(graph(body, _W if weights is None else weights, **options), target=target)
    why = {layer.node.op_type: "integer" if layer.integer else layer.why for layer in placement.layers}
    return why, set(placement.tensors)


def test_a_relu_belongs_to_its_convolution() -> None:
    why, stored = _places(f"a = Conv {_PAD} (x, w) b = Relu (a) y = Conv {_PAD} (b, w2)")
    assert why == {"Conv": "its result is an output or a classifier's scores, which stay float"}
    assert stored == {"x", "b"}


@pytest.mark.parametrize("rectifier", ["Relu (a)", "Clip (a, zero, six)"])
def test_a_cap_belongs_to_its_convolution_too(rectifier: str) -> None:
    weights = {"w": convolution(3, 3), "zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
    why, stored = _places(f"a = Conv {_PAD} (x, w) b = {rectifier} y = Tanh (b)", weights)
    assert why == {"Conv": "integer", "Tanh": "Tanh has no integer kernel"}
    assert stored == {"x", "b"}


def test_a_residual_addition_joins_integers() -> None:
    body = f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, w2) c = Add (a, b) d = Relu (c) y = Tanh (d)"
    why, stored = _places(body)
    assert why["Add"] == "integer"
    assert stored == {"x", "a", "b", "d"}


def test_what_is_computed_in_float_is_joined_in_float() -> None:
    why, stored = _places("a = Elu (x) b = Tanh (x) y0 = Add (a, b) y = Tanh (y0)")
    assert why["Add"] == "all its inputs are computed in float"
    assert stored == set()


def test_adding_a_constant_stays_float() -> None:
    why, _ = _places("a = Add (x, c) y = Tanh (a)", {"c": vector(16)})
    assert why["Add"] == "one of its inputs is a constant"


def test_operators_that_move_data_move_integers() -> None:
    body = (
        f"a = Conv {_PAD} (x, w) b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) "
        "c = GlobalAveragePool (b) d = Flatten (c) y = Tanh (d)"
    )
    placement = place(graph(body, _W, outputs="float[N, C] y"))
    assert placement.tensors["b"] == "a"  # the range of what was moved
    assert placement.tensors["d"] == "c"
    assert {layer.node.op_type for layer in placement.layers if layer.integer} == {"Conv", "GlobalAveragePool"}


@pytest.mark.parametrize(("mode", "moves"), [("nearest", True), ("linear", False)])
def test_repeated_pixels_are_integers_and_interpolated_ones_are_computed(mode: str, moves: bool) -> None:
    weights = {"w": convolution(3, 3), "w2": convolution(3, 3, seed=1), "s": np.float32([1, 1, 2, 2])}
    body = f'a = Conv {_PAD} (x, w) b = Resize <mode="{mode}"> (a, , s) c = Conv {_PAD} (b, w2) y = Tanh (c)'
    placement = place(graph(body, weights))
    assert (placement.tensors["b"] == "a") is moves
    assert ("Resize" in {layer.node.op_type for layer in placement.layers}) is not moves


def test_a_classifier_may_end_the_model() -> None:
    weights = {"w": convolution(3, 3), "f": vector(3 * 7).reshape(7, 3), "b": vector(7)}
    body = f"a = Conv {_PAD} (x, w) c = GlobalAveragePool (a) d = Flatten (c) y = Gemm <transB=1> (d, f, b)"
    why, stored = _places(body, weights, outputs="float[N, 7] y")
    assert why["Gemm"] == "integer"
    assert "y" not in stored


def test_scores_before_a_softmax_stay_float() -> None:
    weights = {"w": convolution(3, 3), "f": vector(3 * 7).reshape(7, 3)}
    body = f"a = Conv {_PAD} (x, w) c = GlobalAveragePool (a) d = Flatten (c) l = Gemm <transB=1> (d, f) y = "
    for end, stored in (("Softmax (l)", False), ("Tanh (l)", True)):
        _, tensors = _places(body + end, weights, outputs="float[N, 7] y")
        assert ("l" in tensors) is stored


_MAPS = "float[N, C, H, W] b, float[N, C, H, W] y"


@pytest.mark.parametrize(
    ("target", "stored"),
    [(X86, {"x", "b", "y"}), (ARM, {"x", "b", "y"}), (OPENVINO, {"x", "b"}), (TENSORRT, {"x", "b"})],
)
def test_feature_maps_are_stored_where_a_convolution_cannot_give_floats(target: Target, stored: set[str]) -> None:
    body = f"a = Conv {_PAD} (x, w) b = Relu (a) y = Conv {_PAD} (b, w2)"
    assert _places(body, target=target, outputs=_MAPS) == ({"Conv": "integer"}, stored)


@pytest.mark.parametrize(
    ("end", "shape"), [("y = Conv (p, v)", "N, 3, 1, 1"), ("s = Conv (p, v) y = Flatten (s)", "N, 3")]
)
def test_scores_beside_feature_maps_stay_float(end: str, shape: str) -> None:
    body = f"a = Conv {_PAD} (x, w) p = GlobalAveragePool (a) {end}"
    weights = {"w": _W["w"], "v": convolution(3, 3, 1)}
    placement = place(graph(body, weights, outputs=f"float[N, C, H, W] a, float[{shape}] y"))
    assert placement.outputs == {"a"}
    assert [layer.integer for layer in placement.layers] == [True, True, False]


def test_averages_that_are_scores_stay_float() -> None:
    """As integers they would end where those of the pictures for calibration do."""
    body = f"a = Conv {_PAD} (x, w) c = GlobalAveragePool (a) d = Flatten (c) y = "
    for end, stored in (("Softmax (d)", {"x", "a"}), ("Tanh (d)", {"x", "a", "c", "d"})):
        _, tensors = _places(body + end, {"w": _W["w"]}, outputs="float[N, 3] y")
        assert tensors == stored


@pytest.mark.parametrize("form", ["Gemm <transB=0> (d, g)", "Gemm <transB=1, alpha=2.0> (d, f)"])
def test_other_matrix_products_stay_float(form: str) -> None:
    weights = {"w": convolution(3, 3), "f": vector(3 * 7).reshape(7, 3), "g": vector(3 * 7).reshape(3, 7)}
    used = {name: array for name, array in weights.items() if name == "w" or name in form}
    body = f"a = Conv {_PAD} (x, w) c = GlobalAveragePool (a) d = Flatten (c) y = {form}"
    why, _ = _places(body, used, outputs="float[N, 7] y")
    assert why["Gemm"] == "it is a matrix product other than x · Wᵀ + b"


def test_a_weight_that_is_an_input_stays_float() -> None:
    why, _ = _places(f"a = Conv {_PAD} (x, v) y = Softmax (a)", {}, inputs="float[N, 3, 16, 16] x, float[3, 3, 3, 3] v")
    assert "a caller may change it" in why["Conv"]


@pytest.mark.parametrize(("fill", "stored"), [(0.0, True), (1.0, False)])
def test_padding_moves_integers_only_where_it_is_with_zeros(fill: float, stored: bool) -> None:
    body = (
        f"p = Constant <value_ints=[0,0,1,1,0,0,1,1]> () v = Constant <value_float={fill}> () "
        f"a = Conv {_PAD} (x, w) b = Pad (a, p, v) c = Conv (b, w2) y = Tanh (c)"
    )
    placement = place(graph(body, _W))
    assert placement.tensors["b"] == ("a" if stored else "b")


def test_a_gate_is_applied_to_integers() -> None:
    """Squeeze-and-excitation (Hu et al. 2018), and SiLU alike."""
    body = (
        f"a = Conv {_PAD} (x, w) p = GlobalAveragePool (a) f = Conv (p, v) g = Sigmoid (f) "
        f"m = Mul (a, g) b = Conv {_PAD} (m, w2) y = Tanh (b)"
    )
    why, stored = _places(body, _W | {"v": convolution(3, 3, 1)})
    assert {op_type: said for op_type, said in why.items() if said != "integer"} == {
        "Tanh": "Tanh has no integer kernel"
    }
    assert stored == {"x", "a", "p", "f", "g", "m", "b"}


@pytest.mark.parametrize("join", ["Mul", "Add"])
def test_shares_of_a_softmax_are_joined_in_float(join: str) -> None:
    body = f"a = Conv {_PAD} (x, w) s = Softmax <axis=1> (a) m = {join} (a, s) b = Conv {_PAD} (m, w2) y = Tanh (b)"
    why, stored = _places(body)
    assert "is a softmax" in why[join]
    assert stored == {"x", "a", "m", "b"}


def test_parts_of_a_tensor_are_its_integers() -> None:
    body = (
        f"a = Conv {_PAD} (x, v) b, c = Split <axis=1, num_outputs=2> (a) d = Conv {_PAD} (b, w) "
        f"e = Concat <axis=1> (c, d) y = Tanh (e)"
    )
    placement = place(graph(body, {"v": convolution(6, 3), "w": convolution(3, 3)}, opset=18))
    assert (placement.tensors["b"], placement.tensors["c"]) == ("a", "a")


def test_parts_that_are_outputs_too_are_no_integers() -> None:
    body = f"a = Conv {_PAD} (x, v) y, c = Split <axis=1, num_outputs=2> (a) d = Conv {_PAD} (c, w) z = Tanh (d)"
    outputs = "float[N, C, H, W] y, float[N, C, H, W] z"
    placement = place(graph(body, {"v": convolution(6, 3), "w": convolution(3, 3)}, outputs=outputs, opset=18))
    assert placement.tensors["c"] == "c"
    assert "y" not in placement.tensors


# what was asked to stay in float


def test_a_layer_can_be_kept_in_float() -> None:
    body = f"a = Conv {_PAD} (x, w) b = Relu (a) c = Conv {_PAD} (b, w2) d = Add (b, c) y = Tanh (d)"
    placement = place(graph(body, _W), keep_float={"c"})
    why = {layer.node.outputs[0].name: layer.why for layer in placement.layers}
    assert why["c"] == "kept in float"
    assert why["a"] == why["d"] == "it has an integer kernel"
    assert set(placement.tensors) == {"x", "b", "c", "d"}  # c for the addition


def test_all_of_it_can_be_kept_in_float() -> None:
    body = f"a = Conv {_PAD} (x, w) c = Conv {_PAD} (a, w2) d = Add (a, c) y = Tanh (d)"
    placement = place(graph(body, _W), keep_float={"a", "c", "d"})
    assert not any(layer.integer for layer in placement.layers)
    assert not placement.tensors


# targets


_BLOCK = f"a = Conv {_PAD} (x, w) r = Relu (a) b = Conv {_PAD} (r, w2) s = Add (b, x) t = Relu (s) y = Tanh (t)"


@pytest.mark.parametrize("target", [X86, ARM, OPENVINO])
def test_these_store_inputs_and_results(target: Target) -> None:
    why, stored = _places(_BLOCK, target=target)
    assert (why["Conv"], why["Add"]) == ("integer", "integer")
    assert stored == {"x", "r", "b", "t"}


def test_what_a_float_convolution_adds_to_a_sum_of_integers_is_stored() -> None:
    placement = place(graph(_BLOCK, _W), target=OPENVINO, keep_float={"b"})
    assert set(placement.tensors) == {"x", "r", "b", "t"}


def test_tensorrt_stores_what_convolutions_read_and_nothing_between_them_and_the_sum() -> None:
    why, stored = _places(_BLOCK, target=TENSORRT)
    assert (why["Conv"], why["Add"]) == ("integer", "integer")
    assert stored == {"x", "r"}  # x is the identity too; b, s and t are computed together


@pytest.mark.parametrize("sum_of", ["b, i", "i, b"])
def test_the_shorter_branch_is_the_identity(sum_of: str) -> None:
    body = (
        f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, w2) i = Conv {_PAD} (x, w) s = Add ({sum_of}) "
        f"c = Conv {_PAD} (s, w) y = Tanh (c)"
    )
    _, stored = _places(body, target=TENSORRT)
    assert stored == {"x", "a", "i", "s"}


@pytest.mark.parametrize(
    "form",
    [
        "i = Tanh (x) s = Add (x, i)",
        f"i = Conv {_PAD} (x, w) r = Relu (i) s = Add (x, r)",
        f"i = Conv {_PAD} (x, w) s = Add (i, i)",
    ],
)
def test_a_sum_without_a_convolution_of_its_own_stays_float_for_tensorrt(form: str) -> None:
    why, _ = _places(f"{form} y = Tanh (s)", {"w": convolution(3, 3)} if "w" in form else {}, target=TENSORRT)
    assert "no INT8 convolution can be fused with it" in why["Add"]


@pytest.mark.parametrize(("groups", "channels", "integer"), [(2, 8, True), (4, 8, False), (8, 8, False), (1, 6, True)])
def test_groups_of_tensorrt_have_multiples_of_four_channels(groups: int, channels: int, integer: bool) -> None:
    weights = {"v": convolution(channels, 3), "w": convolution(channels, channels // groups)}
    body = f"a = Conv {_PAD} (x, v) b = Conv <pads=[1,1,1,1], group={groups}> (a, w) y = Tanh (b)"
    placement = place(graph(body, weights), target=TENSORRT)
    (layer,) = (layer for layer in placement.layers if layer.node.outputs[0].name == "b")
    assert layer.integer is integer
    if not integer:
        assert layer.why == f"its groups have {channels // groups} channels, and tensorrt takes only multiples of 4"
    assert all(layer.integer for layer in place(graph(body, weights)).layers[:2])


@pytest.mark.parametrize(("target", "integer"), [(X86, False), (ARM, False), (OPENVINO, True), (TENSORRT, True)])
def test_who_has_a_transposed_convolution(target: Target, integer: bool) -> None:
    body = "a = ConvTranspose <strides=[2,2]> (x, w) r = Relu (a) b = Conv (r, w2) y = Tanh (b)"
    why, _ = _places(body, {"w": convolution(3, 3, 2), "w2": convolution(3, 3)}, target=target)
    assert why["ConvTranspose"] == ("integer" if integer else "ConvTranspose has no integer kernel")


def test_a_convolution_may_end_a_model_of_tensorrt() -> None:
    why, stored = _places(f"a = Conv {_PAD} (x, w) y = Conv {_PAD} (a, w2)", target=TENSORRT)
    assert why == {"Conv": "integer"}
    assert stored == {"x", "a"}


def test_a_concatenation_is_stored_as_a_whole_for_tensorrt() -> None:
    body = (
        f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (x, w2) c = Concat <axis=1> (a, b) d = Conv {_PAD} (c, v) y = Tanh (d)"
    )
    why, stored = _places(body, _W | {"v": convolution(3, 6)}, target=TENSORRT)
    assert "Concat" not in why
    assert stored == {"x", "c"}
