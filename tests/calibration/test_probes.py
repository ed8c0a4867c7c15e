from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import ModelFileError
from rexport.calibration import Histogram, TensorStatistics, calibrate
from rexport.calibration.probes import SAMPLED, stride_for
from tests._graphs import convolution, graph, images, run_exposed


@given(st.integers(1, 10**6), st.integers(1, 10**5))
def test_the_stride_is_the_smallest_that_shares_no_factor(rows: int, length: int) -> None:
    stride = stride_for(rows, length)
    assert math.gcd(stride, rows) == 1
    taken = -(-rows // stride)
    assert taken == 1 or taken * length <= SAMPLED
    for smaller in range(1, stride):
        assert math.gcd(smaller, rows) > 1 or -(-rows // smaller) * length > SAMPLED


def test_large_tensors_are_sampled_and_their_ends_are_exact() -> None:
    model = graph(
        "a = Conv<pads = [1, 1, 1, 1]>(x, w) y = Relu(a)", {"w": convolution(16, 3)}, inputs="float[N, 3, 60, 60] x"
    )
    x = images(3, 60)
    (y,) = run_exposed(model, x, ["y"])
    seen = calibrate(model, [x], threads=1).tensors["y"]
    exact = TensorStatistics.of(y)
    assert (seen.channel_lows, seen.channel_highs) == (exact.channel_lows, exact.channel_highs)
    assert (seen.sum_of_lows, seen.sum_of_highs, seen.values) == (exact.sum_of_lows, exact.sum_of_highs, 3 * 3600)
    stride = stride_for(16 * 60, 60)
    assert stride > 1
    sample = y.reshape(3, 16 * 60, 60)[:, ::stride]
    assert seen.histogram.total == sample.size
    assert seen.histogram == Histogram.of(sample).coarsened(seen.histogram.exponent)
    # it takes its share of each channel, row and column
    taken = np.zeros((16 * 60, 60), bool)
    taken[::stride] = True
    for axis, rows in ((0, 60), (1, 16), (2, np.inf)):  # of so many it has one more or one less
        shares = taken.reshape(16, 60, 60).mean(axis=tuple({0, 1, 2} - {axis}))
        assert shares.max() - shares.min() <= 1 / rows + 1e-9, axis


@pytest.mark.parametrize("size", [16, 200, 256])
def test_images_of_unknown_size_are_sampled_too(size: int) -> None:
    weights = {"w": convolution(8, 3)}
    free = graph("a = Conv<pads = [1, 1, 1, 1]>(x, w) y = Relu(a)", weights, inputs="float[N, 3, H, W] x")
    seen = calibrate(free, [images(1, size)], threads=1).tensors["y"]
    (y,) = run_exposed(free, images(1, size), ["y"])
    sample = y.ravel()[:: 2 * (y.size // (2 * SAMPLED)) + 1]
    assert sample.size <= 2 * SAMPLED
    assert seen.histogram == Histogram.of(sample).coarsened(seen.histogram.exponent)
    assert seen.range == TensorStatistics.of(y).range
    assert seen.values == size * size


def test_images_of_different_sizes_add_up() -> None:
    free = graph("y = Conv(x, w)", {"w": convolution(8, 3)}, inputs="float[N, 3, H, W] x")
    table = calibrate(free, [images(1, 16), images(2, 20)], threads=1)
    assert (table.images, table.tensors["x"].values) == (3, 16 * 16 + 2 * 20 * 20)


def test_tensors_without_images_or_channels_are_watched_as_a_whole() -> None:
    model = graph(
        "s = Shape(x) f = Cast<to = 1>(s) n = ReduceMax<keepdims = 0>(f) m = Mul(x, n) "
        "r = Reshape(m, shape) y = Transpose<perm = [0, 2, 3, 1]>(m)",
        {"shape": np.array([-1, 8])},
        outputs="float[N, H, W, C] y, float[M, 8] r",
    )
    table = calibrate(model, [images(2), images(3)], threads=1)
    four, scalar, rows = (table.tensors[name] for name in ("f", "n", "r"))
    assert (four.images, four.values, four.low, four.high) == (2, 8, 2.0, 16.0)  # once a batch
    assert (scalar.images, scalar.values, scalar.low) == (2, 2, 16.0)
    assert (rows.images, rows.values, len(rows.channel_lows)) == (5 * 3 * 32, 5 * 3 * 32, 8)
    assert table.tensors["y"].range == rows.range


def test_copies_that_fill_a_batch_do_not_count() -> None:
    body, weights = (
        "a = Conv(x, w) b = Relu(a) r = Reshape(b, shape) y = Sigmoid(r)",
        {
            "w": convolution(8, 3),
            "shape": np.array([-1, 4, 14 * 14]),
        },
    )
    fixed = graph(body, weights, inputs="float[8, 3, 16, 16] x", outputs="float[M, 4, 196] y")
    free = graph(body, weights, outputs="float[M, 4, 196] y")
    ten = images(10)
    filled, exact = calibrate(fixed, [ten], threads=1), calibrate(free, [ten[:8], ten[8:]], threads=1)
    assert filled.tensors == exact.tensors
    assert (filled.images, filled.data_sha256) == (exact.images, exact.data_sha256)


def test_old_opsets_are_refused_in_words() -> None:
    with pytest.raises(ModelFileError, match="opset 11, and calibration needs 13 or later"):
        calibrate(graph("y = Relu(x)", opset=11), [images(1)])


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_newer_opset_will_do(opset: int) -> None:
    assert calibrate(graph("y = Relu(x)", opset=opset), [images(2)]).tensors["y"].low == 0.0
