from __future__ import annotations

import numpy as np
import pytest

from rexport.calibration import calibrate
from rexport.calibration.rectified_sums import with_visible_terms
from tests._graphs import convolution, graph, images, run_exposed

_WEIGHTS = {"w1": convolution(8, 3), "w2": convolution(8, 8), "w3": convolution(8, 8, 1)}
_FIRST = "a = Conv<pads = [1, 1, 1, 1]>(x, w1) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, w2)"
_OUTPUT = "float[N, 8, 16, 16] y"


def test_below_what_is_visible_a_term_changes_nothing() -> None:
    model = graph(f"{_FIRST} d = Add(c, b) y = Relu(d)", _WEIGHTS, outputs=_OUTPUT)
    table = calibrate(model, [images(8)])
    b, c, y = run_exposed(model, images(8), ("b", "c", "y"))
    low = np.float32(table.tensors["c"].low)
    assert low > c.min()  # or this shows nothing
    np.testing.assert_allclose(np.maximum(np.maximum(c, low) + b, 0), y, rtol=0, atol=1e-6)
    # and it is the highest such end: a little higher, and something is lost
    assert np.abs(np.maximum(np.maximum(c, low + np.float32(0.01)) + b, 0) - y).max() > 1e-3
    assert table.tensors["c"].high == pytest.approx(c.max(), rel=0, abs=1e-6)


@pytest.mark.parametrize("order", ["c, b", "b, c"])
def test_the_branch_is_found_on_either_side(order: str) -> None:
    model = graph(f"{_FIRST} d = Add({order}) y = Relu(d)", _WEIGHTS, outputs=_OUTPUT)
    assert list(with_visible_terms(model)[1]) == ["c"]


def test_of_two_convolutions_one_is_taken() -> None:
    body = f"{_FIRST} e = Conv(b, w3) d = Add(c, e) y = Relu(d)"
    assert list(with_visible_terms(graph(body, _WEIGHTS, outputs=_OUTPUT))[1]) == ["c"]


@pytest.mark.parametrize(
    "rest",
    [
        "d = Add(c, b) y = Sigmoid(d)",  # it shows what is below zero
        "d = Add(c, b) e = Relu(d) y = Sub(e, d)",  # so does a second reader of the sum
        "d = Add(c, b) e = Relu(d) y = Sub(e, c)",  # and one of the term
        "d = Add(c, k) y = Relu(d)",  # a bias
        "d = Add(b, b) y = Relu(d)",  # no convolution's result
    ],
)
def test_what_is_seen_elsewhere_is_left(rest: str) -> None:
    weights = {**_WEIGHTS, "k": np.ones((1, 8, 1, 1), np.float32)}
    assert not with_visible_terms(graph(f"{_FIRST} {rest}", weights, outputs=_OUTPUT))[1]
