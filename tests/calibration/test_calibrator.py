from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import UsageError
from rexport.calibration import (
    CalibrationTable,
    Calibrator,
    Method,
    TensorRange,
    TensorStatistics,
    choose_range,
    costlier_than_minmax,
)
from rexport.calibration.entropy import entropy_threshold
from tests.calibration._tables import arrays, statistics

_ALL = [Calibrator(method) for method in Method]
_CALIBRATORS = st.sampled_from(_ALL)
_TARGETS = st.sampled_from([{"steps": 255, "symmetric": False}, {"steps": 127, "symmetric": True}])
_ENDS = {"steps": 255, "symmetric": False}


def _drawn(kind: str, count: int = 2**15) -> np.ndarray:
    """Return values as activations have them, float32 of shape (4, 1, count / 4)."""
    random = np.random.default_rng(0)
    values = {
        "normal": lambda: random.standard_normal(count),
        "laplace": lambda: random.laplace(size=count),
        "relu": lambda: np.maximum(random.laplace(-0.3, size=count), 0),
        "skewed": lambda: random.gamma(2.0, size=count) - 1.5,
        "outliers": lambda: random.standard_normal(count) * np.where(random.random(count) < 1e-3, 30, 1),
        "negative": lambda: -random.gamma(2.0, size=count),
        "far from zero": lambda: 5 + 0.1 * random.standard_normal(count),
    }[kind]()
    return values.astype(np.float32).reshape(4, 1, -1)


_KINDS = ["normal", "laplace", "relu", "skewed", "outliers", "negative", "far from zero"]


def _error(values: np.ndarray, chosen: TensorRange, *, steps: int, symmetric: bool) -> float:
    """Return the mean squared error of the very values, rounded and clipped."""
    if symmetric:
        scale = max(-chosen.low, chosen.high) / steps
        lowest, highest = -steps, steps
    else:
        scale = (chosen.high - chosen.low) / steps
        lowest = -round(-chosen.low / scale)
        highest = steps + lowest
    integers = np.clip(np.rint(values.astype(np.float64) / scale), lowest, highest)
    return float(np.mean((values - integers * scale) ** 2))


@pytest.mark.slow
@given(statistics(), _CALIBRATORS, _TARGETS)
def test_zero_lies_within_and_nothing_beyond_what_was_seen(
    seen: TensorStatistics, calibrator: Calibrator, target: dict[str, int]
) -> None:
    chosen = choose_range(seen, calibrator, **target)
    assert min(seen.low, 0) <= chosen.low <= 0 <= chosen.high <= max(seen.high, 0)
    assert chosen.finite
    assert choose_range(seen, calibrator, **target) == chosen


@settings(max_examples=50)
@given(arrays(), _CALIBRATORS, _TARGETS, st.integers(-20, 20))
def test_twice_the_values_have_twice_the_range(
    values: np.ndarray, calibrator: Calibrator, target: dict[str, int], power: int
) -> None:
    values = np.where(np.abs(values) > 1e-20, values, 0) * np.float32(1e-19)  # clear of both ends of float32
    values = np.where(np.abs(values) > 1e-20, values, 0)
    once = choose_range(TensorStatistics.of(values), calibrator, **target)
    scaled = choose_range(TensorStatistics.of(np.ldexp(values, power)), calibrator, **target)
    assert scaled == TensorRange(math.ldexp(once.low, power), math.ldexp(once.high, power))


@given(statistics(), _TARGETS, st.lists(st.floats(50.1, 100), min_size=2, max_size=4))
def test_a_higher_percentage_never_gives_a_narrower_range(
    seen: TensorStatistics, target: dict[str, int], percentages: list[float]
) -> None:
    ranges = [choose_range(seen, Calibrator(Method.PERCENTILE, p), **target) for p in sorted(percentages)]
    for narrow, wide in pairwise(ranges):
        assert wide.low <= narrow.low <= narrow.high <= wide.high
    everything = choose_range(seen, Calibrator(Method.PERCENTILE, 100), **target)
    if not target["symmetric"]:
        assert everything == choose_range(seen, Calibrator.MINMAX, **target)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("percentage", [99.0, 99.9, 99.99])
def test_a_percentile_leaves_out_its_share(kind: str, percentage: float) -> None:
    values = _drawn(kind)
    seen = TensorStatistics.of(values)
    calibrator = Calibrator(Method.PERCENTILE, percentage)
    width, share = seen.histogram.width, percentage / 100
    chosen = choose_range(seen, calibrator, **_ENDS)
    high, low = (np.quantile(values, q, method="inverted_cdf") for q in (share, 1 - share))
    assert chosen.high == pytest.approx(max(high, 0), abs=width)
    assert chosen.low == pytest.approx(min(low, 0), abs=width)
    chosen = choose_range(seen, calibrator, steps=127, symmetric=True)
    largest = np.quantile(np.abs(values), share, method="inverted_cdf")
    assert max(-chosen.low, chosen.high) == pytest.approx(largest, abs=width)


def test_the_average_is_that_of_the_images_ends() -> None:
    values = np.float32([[[-1, 2]], [[-3, 0.5]], [[0.5, 8]]])
    chosen = choose_range(TensorStatistics.of(values), Calibrator.AVERAGE, **_ENDS)
    assert chosen == TensorRange(-3.5 / 3, 3.5)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("target", [_ENDS, {"steps": 127, "symmetric": True}, {"steps": 15, "symmetric": False}])
def test_no_other_calibrator_has_a_smaller_squared_error(kind: str, target: dict[str, int]) -> None:
    values = _drawn(kind)
    seen = TensorStatistics.of(values)
    best = _error(values, choose_range(seen, Calibrator.MSE, **target), **target)
    widest = choose_range(seen, Calibrator.MINMAX, **target)
    # The histogram's values count as spread over their bins, and which side of a step the outermost ones fall on is
    # chance: with other draws of the same kinds, errors differ by about a hundredth.
    for other in _ALL:
        assert best <= 1.015 * _error(values, choose_range(seen, other, **target), **target), other
    factors = np.linspace(0.05, 1, 20)
    grid = [(low, high) for low in factors for high in (factors if widest.low < 0 < widest.high else [low])]
    for low, high in grid:
        assert best <= 1.015 * _error(values, TensorRange(widest.low * low, widest.high * high), **target)


def test_outliers_are_clipped_by_what_can_clip() -> None:
    values = _drawn("outliers")
    seen = TensorStatistics.of(values)
    widest = choose_range(seen, Calibrator.MINMAX, **_ENDS)
    for calibrator in (Calibrator.PERCENTILE, Calibrator.ENTROPY, Calibrator.MSE, Calibrator.AVERAGE):
        chosen = choose_range(seen, calibrator, **_ENDS)
        assert chosen.high - chosen.low < 0.95 * (widest.high - widest.low), calibrator


@pytest.mark.parametrize("calibrator", _ALL, ids=str)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-45, -1e-40, 3.4e38])
def test_constant_and_dead_tensors_have_a_range(calibrator: Calibrator, value: float) -> None:
    for values in (np.full((1, 2, 3), value, np.float32), np.float32([[[value, 0]]])):
        chosen = choose_range(TensorStatistics.of(values), calibrator, **_ENDS)
        exact = float(np.float32(value))
        # a bin's values count as spread over it, 1/2048 of the magnitude or less
        assert chosen.high == pytest.approx(max(exact, 0), rel=2e-3 if calibrator == Calibrator.MSE else 1e-3)
        assert chosen.low == pytest.approx(min(exact, 0), rel=2e-3 if calibrator == Calibrator.MSE else 1e-3)


def _degenerate(kind: str) -> np.ndarray:
    """Return values of no bell, float32 of shape (4, 1, 4096)."""
    random = np.random.default_rng(0)
    zeros, chance = np.zeros(2**14), random.random(2**14)
    spike = zeros.copy()
    spike[5000] = 7
    values = {
        "two levels": np.where(chance < 0.5, 0, 8) + 0.01 * random.random(2**14),
        "two levels, of which the upper is rare": np.where(chance < 0.97, 0.5, 8),
        "both signs": np.where(chance < 0.4, -3, 5),
        "constant": zeros + 3,
        "a single spike": spike,
        "nearly always zero": np.where(chance < 1e-3, 4 + chance, 0),
        "zero": zeros,
    }[kind]
    return values.astype(np.float32).reshape(4, 1, -1)


@pytest.mark.parametrize("calibrator", _ALL, ids=str)
@pytest.mark.parametrize("target", [_ENDS, {"steps": 127, "symmetric": True}], ids=["ends", "symmetric"])
@pytest.mark.parametrize(
    "kind",
    [
        "two levels",
        "two levels, of which the upper is rare",
        "both signs",
        "constant",
        "nearly always zero",
        "zero",
    ],
)
def test_values_of_no_bell_are_not_cut(calibrator: Calibrator, target: dict[str, int], kind: str) -> None:
    values = _degenerate(kind)
    chosen = choose_range(TensorStatistics.of(values), calibrator, **target)
    assert chosen.low <= 0 <= chosen.high
    clipped = np.clip(values, -chosen.high, chosen.high) if target["symmetric"] else np.clip(values, *_ends(chosen))
    assert np.abs(clipped - values).max() <= 0.05 * np.abs(values).max()


def _ends(chosen: TensorRange) -> tuple[float, float]:
    return chosen.low, chosen.high


@pytest.mark.parametrize("calibrator", [Calibrator.PERCENTILE, Calibrator.ENTROPY, Calibrator.MSE], ids=str)
def test_a_single_spike_is_all_there_is(calibrator: Calibrator) -> None:
    chosen = choose_range(TensorStatistics.of(_degenerate("a single spike")), calibrator, **_ENDS)
    assert chosen.high == pytest.approx(7, rel=0.01)


@pytest.mark.parametrize("target", [_ENDS, {"steps": 127, "symmetric": True}], ids=["ends", "symmetric"])
def test_what_a_calibrator_costs(target: dict[str, int]) -> None:
    values = {kind: _drawn(kind) for kind in ("normal", "relu", "outliers")} | {"zero": _degenerate("zero")}
    values["spike"] = _degenerate("a single spike")
    seen = {kind: TensorStatistics.of(array) for kind, array in values.items()}
    table = CalibrationTable(model_sha256="ab" * 32, images=4, tensors=seen)
    assert costlier_than_minmax(table, Calibrator.MINMAX, **target, factor=0) == {}
    assert costlier_than_minmax(table, Calibrator.MSE, **target, factor=1.01) == {}
    calibrator = Calibrator(Method.PERCENTILE, 95)
    ratios = costlier_than_minmax(table, calibrator, **target, factor=0)
    assert list(ratios.values()) == sorted(ratios.values(), reverse=True)
    for kind in ("normal", "relu", "outliers"):
        ways = (calibrator, Calibrator.MINMAX)
        chosen, widest = (_error(values[kind], choose_range(seen[kind], way, **target), **target) for way in ways)
        # the values in a bin count as spread over it, the many zeros of a ReLU too
        assert ratios[kind] == pytest.approx(chosen / widest, rel=0.1), kind
    assert set(costlier_than_minmax(table, calibrator, **target)) == {"normal", "relu", "outliers"}
    assert "spike" in costlier_than_minmax(table, Calibrator.AVERAGE, **target)


def _entropy_by_definition(values: np.ndarray) -> float:
    """Go through Migacz's procedure threshold by threshold, with 2ᵉ⁺¹ as the width of a bin."""
    width = 2 * TensorStatistics.of(values).histogram.width
    counts = np.bincount((np.abs(values).ravel() / width).astype(int)).astype(float)
    counts[0] = min(counts[:2])
    best = (math.inf, 0)
    for end in range(128, len(counts) + 1):
        p = counts[:end].copy()
        p[-1] += counts[end:].sum()
        q = np.zeros(end)
        for level in range(128):
            bins = slice(level * end // 128, (level + 1) * end // 128)
            filled = p[bins] > 0
            q[bins][filled] = counts[bins].sum() / max(1, filled.sum())
        if counts[1:end].sum() >= 0.99 * counts[1:].sum() and (q[p > 0] > 0).all():
            p, q = p[p > 0] / p.sum(), q[p > 0] / q.sum()
            divergence = float((p * np.log(p / q)).sum())
            if divergence <= best[0] + 1e-12:  # far below what thresholds differ by
                best = (divergence, end)
    return best[1] * width


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outliers", "far from zero"])
def test_the_entropy_threshold_is_that_of_the_definition(kind: str) -> None:
    values = _drawn(kind)
    seen = TensorStatistics.of(values)
    assert entropy_threshold(seen.histogram) == _entropy_by_definition(values)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu"])
def test_the_entropy_threshold_is_close_to_that_of_onnxruntime(kind: str) -> None:
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = _drawn(kind, 2**18)
    values = values[values != 0].reshape(1, 1, -1)  # zeros count otherwise (see entropy.py)
    largest = float(np.abs(values).max())
    # it folds nothing, so half of its bins and of its levels lie below zero
    counts, edges = np.histogram(np.concatenate([values.ravel(), -values.ravel()]), 4095, (-largest, largest))
    collector = calibrate.HistogramCollector("entropy", True, 4095, 256, None, "same")
    theirs = float(np.ravel(collector.get_entropy_threshold((counts, edges, -largest, largest, largest), 256)[1])[0])
    ours = choose_range(TensorStatistics.of(values), Calibrator.ENTROPY, steps=127, symmetric=True).high
    # The divergence is flat and noisy about its minimum, and they put all bins that are left over into the last level:
    # thresholds of a sixth more or less lose about the same.
    assert ours == pytest.approx(theirs, rel=0.17)


@pytest.mark.parametrize(
    ("text", "calibrator"),
    [
        ("minmax", Calibrator.MINMAX),
        ("average", Calibrator.AVERAGE),
        ("percentile", Calibrator.PERCENTILE),
        ("percentile:99.99", Calibrator.PERCENTILE),
        ("percentile:99.5", Calibrator(Method.PERCENTILE, 99.5)),
        ("entropy", Calibrator.ENTROPY),
        ("mse", Calibrator.MSE),
    ],
)
def test_calibrators_have_names(text: str, calibrator: Calibrator) -> None:
    assert Calibrator.parse(text) == calibrator
    assert Calibrator.parse(str(calibrator)) == calibrator


@pytest.mark.parametrize("text", ["", "kl", "mse:3", "percentile:", "percentile:many", "minmax:", "MSE"])
def test_other_names_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match=r"choose one of minmax, average, percentile\[:99.9\], entropy, mse"):
        Calibrator.parse(text)


@pytest.mark.parametrize("text", ["percentile:50", "percentile:101", "percentile:-1", "percentile:nan"])
def test_percentages_that_make_no_sense_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="above 50 and at most 100"):
        Calibrator.parse(text)
