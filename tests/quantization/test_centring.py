"""The same function with shifted tensors: on small graphs, on pre-activation networks, and what it gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from rexport.calibration import Calibrator, TensorRange, calibrate, choose_range
from rexport.model_file import model_hash, to_bytes
from rexport.quantization.centring import centre_channels
from rexport.quantization.equalization import equalize
from tests._graphs import convolution, graph, images, run_exposed, vector
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

_PAD = "<pads=[1,1,1,1]>"
_TOLERANCE = 1e-5  # float32 has 6e-8; a few layers of sums over some hundred products


def _assert_shifted(model: ir.Model, x: np.ndarray) -> Mapping[str, np.ndarray]:
    """Check that every tensor is what it was less its shift."""
    shifted, shifts = centre_channels(model, calibrate(model, [x]))
    onnx.checker.check_model(to_bytes(shifted), full_check=True)
    names = [str(value.name) for node in model.graph for value in node.outputs]
    for name, before, after in zip(names, run_exposed(model, x, names), run_exposed(shifted, x, names), strict=True):
        shift = shifts.get(name, np.zeros(1)).reshape(1, -1, *[1] * (before.ndim - 2))
        assert np.abs(before - shift - after).max() <= _TOLERANCE * np.abs(before).max(), name
    return shifts


def _model(body: str) -> ir.Model:
    weights = {
        "w": convolution(8, 3),
        "u": convolution(8, 3, seed=7),
        "b": 3 * vector(8),
        "v": convolution(8, 8, seed=1),
        "d": vector(8, seed=1),
        "p": convolution(6, 8, 1),
        "g": convolution(6, 4, 1, seed=2),
        "o": convolution(4, 6),
        "o8": convolution(4, 8),
        "gamma": np.abs(vector(8, seed=3)) + np.float32(0.5),
        "beta": vector(8, seed=4),
        "mu": vector(8, seed=5),
        "var": np.abs(vector(8, seed=6)) + np.float32(0.5),
        "zero": np.zeros((8, 8, 3, 3), np.float32),
    }
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return graph(body.replace("{p}", _PAD), {name: array for name, array in weights.items() if name in words})


_NORM = "BatchNormalization (s, gamma, beta, mu, var) r = Relu (n)"
_BLOCK = "e = BatchNormalization (a, gamma, beta, mu, var) h = Relu (e) c = Conv {p} (h, v) s = Add (a, c)"
_BODIES = {
    "a pre-activation block": (
        f"a = Conv {{p}} (x, w, b) {_BLOCK} n = {_NORM} y = Conv (r, o8)",
        {"a", "c", "s"},
    ),
    "the convolution is the first term": (
        f"a = Conv {{p}} (x, w, b) {_BLOCK.replace('(a, c)', '(c, a)')} n = {_NORM} y = Conv (r, o8)",
        {"a", "c", "s"},
    ),
    "two convolutions are added": (
        f"a = Conv {{p}} (x, w, b) c = Conv {{p}} (x, u) s = Add (a, c) n = {_NORM} y = Conv (r, o8)",
        {"a", "c", "s"},
    ),
    "a sum with itself": (
        f"a = Conv {{p}} (x, w, b) s = Add (a, a) n = {_NORM} y = Conv (r, o8)",
        {"a", "s"},
    ),
    "an inverted residual": ("a = Conv {p} (x, w, b) q = Conv (a, p) r = Relu (q) y = Conv (r, o)", {"a"}),
    "a grouped reader": ("a = Conv {p} (x, w, b) q = Conv <group=2> (a, g) r = Relu (q) y = Conv (r, o)", {"a"}),
    "a convolution of zeros": (
        f"a = Conv {{p}} (x, w, b) {_BLOCK.replace('v)', 'zero)')} n = {_NORM} y = Conv (r, o8)",
        {"a", "c", "s"},
    ),
    "a reader that pads": ("a = Conv {p} (x, w, b) q = Conv {p} (a, v) r = Relu (q) y = Conv (r, o8)", set()),
    "a ReLU": ("a = Conv {p} (x, w, b) r = Relu (a) y = Conv (r, o8)", set()),
    "one of two readers is a ReLU": (
        f"a = Conv {{p}} (x, w, b) t = Relu (a) c = Conv {{p}} (t, v) s = Add (a, c) n = {_NORM} y = Conv (r, o8)",
        set(),
    ),
}


@pytest.mark.parametrize(("body", "expected"), _BODIES.values(), ids=_BODIES)
def test_which_tensors_are_shifted(body: str, expected: set[str]) -> None:
    shifts = _assert_shifted(_model(body), images(3))
    assert set(shifts) == expected
    assert all(np.abs(shift).max() > 0.1 for name, shift in shifts.items() if name != "c")


def test_an_output_is_not_shifted() -> None:
    model = graph(f"y = Conv {_PAD} (x, w, b)", {"w": convolution(8, 3), "b": vector(8)})
    assert not _assert_shifted(model, images(2))


@pytest.mark.slow
def test_all_sums_of_a_pre_activation_network() -> None:
    model = exported("cifar_preact_resnet8")
    before = model_hash(model)
    shifts = _assert_shifted(model, pictures(4))
    assert {name for name in shifts if name.endswith("add")} == {f"layer{stage}.0.add" for stage in (1, 2, 3)}
    assert model_hash(model) == before


@pytest.mark.parametrize("calibrator", [Calibrator.MINMAX, Calibrator.MSE, Calibrator.PERCENTILE])
def test_ranges_are_clipped_by_the_share_of_the_calibrator(calibrator: Calibrator) -> None:
    model = _model(next(iter(_BODIES.values()))[0])
    table = calibrate(model, [images(50)])
    shifted, shifts = centre_channels(model, table)
    equalized = equalize(shifted, table, shifts)
    after = calibrate(equalized.model, [images(50)])
    for name in shifts:
        seen = table.tensors[name].range.merge(TensorRange(0.0, 0.0))
        chosen = choose_range(table.tensors[name], calibrator, steps=255, symmetric=False)
        share = (chosen.high - chosen.low) / (seen.high - seen.low)
        result, measured = equalized.range_of(name, table, chosen), after.tensors[name].range
        assert result.low == pytest.approx(share * measured.low, rel=1e-4)
        assert result.high == pytest.approx(share * measured.high, rel=1e-4)
