from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.calibration import TensorRange
from rexport.quantization.schemes import (
    INT8,
    INT8_FULL,
    INT8_HALF,
    UINT8,
    Integers,
    of_bias,
    of_range,
    of_weight,
    rounded_up,
    smallest_weight_scale,
)

_FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
_INTEGERS = [UINT8, INT8, INT8_FULL, INT8_HALF]


@pytest.mark.parametrize("integers", _INTEGERS)
@given(ends=st.tuples(_FINITE, _FINITE))
def test_a_range_is_covered_and_zero_is_exact(integers: Integers, ends: tuple[float, float]) -> None:
    low, high = min(ends), max(ends)
    chosen = of_range(TensorRange(low, high), integers)
    scale, zero = float(chosen.scale), int(chosen.zero_point)
    assert chosen.scale.dtype == np.float32
    assert chosen.scale.shape == chosen.zero_point.shape == ()
    assert scale > 0
    assert np.isfinite(1 / scale)
    assert integers.low <= zero <= integers.high
    if scale == 1 and max(-low, high) < 1e-35:
        return  # nothing but zero
    # an end may lie half a step outside, by the rounding of the zero point
    assert scale * (integers.low - zero) <= min(low, 0.0) + 0.51 * scale
    assert scale * (integers.high - zero) >= max(high, 0.0) - 0.51 * scale


@pytest.mark.parametrize("integers", [INT8, INT8_HALF])
def test_symmetric_integers_have_no_zero_point(integers: Integers) -> None:
    assert of_range(TensorRange(-1.0, 3.0), integers).zero_point == 0
    assert of_range(TensorRange(-1.0, 3.0), integers).scale == np.float32(3 / integers.high)


@pytest.mark.parametrize("integers", [UINT8, INT8_FULL])
def test_what_comes_out_of_a_relu_uses_all_integers(integers: Integers) -> None:
    chosen = of_range(TensorRange(0.0, 5.1), integers)
    assert (chosen.zero_point, float(chosen.scale)) == (integers.low, pytest.approx(0.02))


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-20, 1e-3, 1.0, 1e6]))
def test_a_weight_is_off_by_half_a_step_at_most(seed: int, size: float) -> None:
    weight = (np.random.default_rng(seed).standard_normal((5, 3, 3, 3)) * size).astype(np.float32)
    weight[2] = 0
    for integers in (INT8, INT8_HALF):
        chosen, quantized = of_weight(weight, integers)
        assert quantized.dtype == integers.dtype
        assert chosen.scale.shape == chosen.zero_point.shape == (5,)
        assert not chosen.zero_point.any()
        assert np.abs(quantized.astype(int)).max() == integers.high  # in every channel that is not all zeros
        back = quantized * chosen.scale.reshape(-1, 1, 1, 1)
        assert (np.abs(back - weight) <= 0.501 * chosen.scale.reshape(-1, 1, 1, 1)).all()
        assert not quantized[2].any()


def test_pairs_of_products_fit_into_16_bits_with_half_the_range() -> None:
    assert 2 * UINT8.high * INT8_HALF.high <= np.iinfo(np.int16).max < 2 * UINT8.high * INT8.high


def test_a_bias_has_the_scale_of_the_products() -> None:
    bias, input_scale = np.array([0.5, -3.0, 0.0], np.float32), np.float32(0.02)
    weight_scale = np.array([0.1, 0.001, 0.3], np.float32)
    chosen, quantized = of_bias(bias, np.asarray(input_scale), weight_scale)
    np.testing.assert_array_equal(chosen.scale, (np.float64(input_scale) * weight_scale).astype(np.float32))
    assert quantized.dtype == np.int32
    np.testing.assert_allclose(quantized * chosen.scale, bias, atol=0.51 * chosen.scale.max())


def test_a_channel_of_tiny_weights_leaves_room_for_its_bias() -> None:
    """As a BatchNorm leaves it whose γ went to zero: the bias counts, and int32 must hold it."""
    weight, bias = np.full((1, 1, 1, 1), 1e-12, np.float32), np.array([5.0], np.float32)
    input_scale = np.asarray(np.float32(0.01))
    chosen, _ = of_weight(weight, INT8, smallest_scale=smallest_weight_scale(bias, input_scale))
    bias_map, quantized = of_bias(bias, input_scale, chosen.scale)
    assert abs(int(quantized[0])) <= 2**30
    assert quantized[0] * bias_map.scale[0] == pytest.approx(5.0)


@given(low=_FINITE, high=_FINITE)
def test_int8_with_a_zero_point_is_uint8_moved(low: float, high: float) -> None:
    ends = TensorRange(min(low, high), max(low, high))
    signed, unsigned = of_range(ends, INT8_FULL), of_range(ends, UINT8)
    assert signed.scale == unsigned.scale
    if unsigned.scale != 1:  # else the tensor is nothing but zero
        assert abs(int(signed.zero_point) - (int(unsigned.zero_point) - 128)) <= 1  # a tie is rounded to even


@given(seed=st.integers(0, 2**32 - 1))
def test_a_weight_has_a_scale_for_each_of_its_output_channels(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((3, 5, 2, 2)).astype(np.float32)
    chosen, integers = of_weight(weight, INT8, axis=1)
    moved, moved_integers = of_weight(np.moveaxis(weight, 1, 0), INT8)
    np.testing.assert_array_equal(chosen.scale, moved.scale)
    np.testing.assert_array_equal(integers, np.moveaxis(moved_integers, 0, 1))


@given(scale=st.floats(2.0**-40, 2.0**30, width=32))
def test_scales_are_rounded_up_to_float16(scale: float) -> None:
    (rounded,) = rounded_up(np.float32([scale]), np.float16)
    if scale > float(np.finfo(np.float16).max):
        assert rounded == np.float32(scale)
        return
    assert rounded >= np.float32(scale)
    assert np.float32(np.float16(rounded)) == rounded
    below = np.nextafter(np.float16(rounded), np.float16(0))
    assert np.float32(below) < np.float32(scale)  # there is none in between
    assert rounded_up(np.float32([scale]), np.float32)[0] == np.float32(scale)


def test_integers_of_a_weight_fit_its_rounded_scale() -> None:
    weight = (np.random.default_rng(0).standard_normal((4, 9)) * 1e-4).astype(np.float32)
    chosen, integers = of_weight(weight, INT8, exact_in=np.float16)
    # a scale of 1e-6 is rounded to the next of float16's numbers, 6e-8 apart; with those of float32 it would be off by
    # more than half a step
    assert (np.abs(integers * chosen.scale[:, None] - weight) <= 0.501 * chosen.scale[:, None]).all()
