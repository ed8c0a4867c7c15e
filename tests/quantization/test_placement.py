"""Which operators become integer, rule by rule."""

from __future__ import annotations

import numpy as np
import pytest

from rexport.quantization.placement import place
from tests._graphs import convolution, graph, vector

_W = {"w": convolution(3, 3), "w2": convolution(3, 3, seed=1)}
_PAD = "<pads=[1,1,1,1]>"


def _places(body: str, weights: dict[str, np.ndarray] | None = None, **options: str) -> tuple[dict[str, str], set[str]]:
    """Return why each layer is integer or float, by its operator's type, and the tensors that are stored."""
    placement = place(graph(body, _W if weights is None else weights, **options))
    why = {layer.node.op_type: "integer" if layer.integer else layer.why for layer in placement.layers}
    return why, set(placement.tensors)


def test_a_relu_belongs_to_its_convolution() -> None:
    why, stored = _places(f"a = Conv {_PAD} (x, w) b = Relu (a) y = Conv {_PAD} (b, w2)")
    assert why == {"Conv": "its result is an output of the model, which stays float"}
    assert stored == {"x", "b"}


@pytest.mark.parametrize("rectifier", ["Relu (a)", "Clip (a, zero, six)"])
def test_a_cap_belongs_to_its_convolution_too(rectifier: str) -> None:
    weights = {"w": convolution(3, 3), "zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
    why, stored = _places(f"a = Conv {_PAD} (x, w) b = {rectifier} y = Softmax (b)", weights)
    assert why == {"Conv": "integer", "Softmax": "Softmax has no integer kernel"}
    assert stored == {"x", "b"}


def test_a_residual_addition_joins_integers() -> None:
    body = f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, w2) c = Add (a, b) d = Relu (c) y = Softmax (d)"
    why, stored = _places(body)
    assert why["Add"] == "integer"
    assert stored == {"x", "a", "b", "d"}


def test_what_is_computed_in_float_is_joined_in_float() -> None:
    why, stored = _places("a = Softmax (x) b = Sigmoid (x) y0 = Add (a, b) y = Tanh (y0)")
    assert why["Add"] == "what it joins is computed in float"
    assert stored == set()


def test_adding_a_constant_stays_float() -> None:
    why, _ = _places("a = Add (x, c) y = Tanh (a)", {"c": vector(16)})
    assert why["Add"] == "one of its inputs is a constant"


def test_operators_that_move_data_move_integers() -> None:
    body = (
        f"a = Conv {_PAD} (x, w) b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) "
        "c = GlobalAveragePool (b) d = Flatten (c) y = Softmax (d)"
    )
    placement = place(graph(body, _W, outputs="float[N, C] y"))
    assert placement.tensors["b"] == "a"  # the range of what was moved
    assert placement.tensors["d"] == "c"
    assert {layer.node.op_type for layer in placement.layers if layer.integer} == {"Conv", "GlobalAveragePool"}


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
        f"a = Conv {_PAD} (x, w) b = Pad (a, p, v) c = Conv (b, w2) y = Softmax (c)"
    )
    placement = place(graph(body, _W))
    assert placement.tensors["b"] == ("a" if stored else "b")
