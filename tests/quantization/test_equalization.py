"""The same function with scaled tensors: on random chains, operator by operator, and on networks of the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport.calibration import CalibrationTable, TensorRange, TensorStatistics, calibrate, observed_tensors
from rexport.model_file import model_hash, to_bytes
from rexport.passes import fuse
from rexport.passes._graph import name_of
from rexport.quantization import equalization
from rexport.quantization.equalization import Equalized, equalize
from tests._deep import deep
from tests._graphs import convolution, graph, images, run, run_exposed, vector
from tests.passes.test_other_exporters import File
from tests.passes.test_other_exporters import exported as from_torchvision
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

_PAD = "<pads=[1,1,1,1]>"
_LINEAR = "float[N, K] y"
_SMALLEST = 1 / 64
# float32 has 2⁻²⁴ = 6e-8; a scaled weight is rounded once more, and a few layers of sums over some hundred products
# make 1e-6 of it, of the largest value
_TOLERANCE = 5e-6


@pytest.fixture(autouse=True)
def _no_headroom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images are enough to see the algebra; what they leave room for is tested at the end."""
    monkeypatch.setattr("rexport.quantization.equalization._UNSEEN", 0)


def _weights(channels: int = 8, *, spread: float = 20.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Return two convolutions whose hidden channels differ by a factor of ``spread``, and a linear layer."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(-np.log(spread), 0, channels)).astype(np.float32)
    return {
        "w": convolution(channels, 3, seed=seed) * sizes[:, None, None, None],
        "b": vector(channels, seed=seed) * sizes,
        "v": convolution(4, channels, seed=seed),
        "d": vector(4, seed=seed),
        "f": convolution(5, channels, 1, seed=seed)[:, :, 0, 0],
        "e": vector(5, seed=seed),
    }


def _equalized(model: ir.Model, x: np.ndarray) -> Equalized:
    return equalize(model, calibrate(model, [x]))


def _relative(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(np.abs(expected.astype(np.float64) - actual).max() / np.abs(expected).max())


def _assert_scaled(model: ir.Model, x: np.ndarray, *, tolerance: float = _TOLERANCE) -> Equalized:
    """Check that every tensor is what it was over its factors, the outputs what they were, and no end farther out."""
    before = calibrate(model, [x])
    result = equalize(model, before)
    onnx.checker.check_model(to_bytes(result.model), full_check=True)
    assert [node.name for node in result.model.graph] == [name_of(node) for node in model.graph]
    names = [str(value.name) for node in model.graph for value in node.outputs if value.name in before.tensors]
    for name, plain, scaled in zip(
        names, run_exposed(model, x, names), run_exposed(result.model, x, names), strict=True
    ):
        if name not in result.factors:
            assert plain.shape == scaled.shape
            assert np.abs(plain - scaled).max() <= tolerance * np.abs(plain).max(initial=0), name
            continue
        factors = result.factors[name]
        assert factors.shape == plain.shape[1:2]
        assert (factors >= np.float32(_SMALLEST)).all()
        assert (factors <= 1).all()
        by_channel = factors.reshape(1, -1, *[1] * (plain.ndim - 2))
        # relative to each channel, in its own units: a small channel's error must be small
        reach = np.abs(plain).max(axis=tuple(axis for axis in range(plain.ndim) if axis != 1), keepdims=True)
        assert (np.abs(scaled * by_channel - plain) <= 20 * tolerance * np.maximum(reach, reach.max() / 64)).all(), name
    for plain, scaled in zip(run(model, x), run(result.model, x), strict=True):
        assert np.abs(plain - scaled).max() <= tolerance * np.abs(plain).max()
    _assert_ranges(result, before, calibrate(result.model, [x]), tolerance=10 * tolerance)
    return result


def _assert_ranges(result: Equalized, before: CalibrationTable, after: CalibrationTable, *, tolerance: float) -> None:
    """Check that no end moves away from zero, and that :meth:`Equalized.range_of` knows where each is now."""
    assert before.tensors.keys() == after.tensors.keys()
    for name, seen in before.tensors.items():
        low, high = min(seen.low, 0), max(seen.high, 0)
        slack = tolerance * max(-low, high)
        measured, said = after.tensors[name].range, result.range_of(name, before, seen.range)
        assert measured.low >= low - slack, name
        assert measured.high <= high + slack, name
        assert said.low == pytest.approx(measured.low, abs=slack), name
        assert said.high == pytest.approx(measured.high, abs=slack), name


# networks


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet8",
        "cifar_preact_resnet8",
        "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]",
        *deep("cifar_resnet20"),
    ],
)
def test_every_tensor_inside_networks_of_the_zoo_is_scaled(name: str) -> None:
    model = exported(name)
    result = _assert_scaled(model, pictures(4), tolerance=2e-5)  # up to twenty layers add up
    assert set(observed_tensors(model)) - result.factors.keys() == {"images", "logits"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("network", ["mobilenet_v2", *deep("densenet121")])
def test_networks_of_torchvision(network: str, torchvision: Any) -> None:
    model = fuse(from_torchvision(File(network=f"torchvision.{network}", opset=17), torchvision)).model
    result = _assert_scaled(model, pictures(2, 64), tolerance=2e-5)
    assert len(result.factors) > 20
    # ReLU6 and what is joined keep their scales, with all that the same factor would reach
    fixed = [node for node in model.graph if node.op_type in ("Clip", "Concat")]
    assert len(fixed) > 20
    assert not {str(value.name) for node in fixed for value in (*node.outputs, node.inputs[0])} & result.factors.keys()


# operator by operator

_NONE: set[str] = set()
_CHAINS = {
    "relu": ("a = Conv {p} (x, w, b) r = Relu (a) y = Conv (r, v, d)", {"a", "r"}),
    "no bias": ("a = Conv {p} (x, w) r = Relu (a) y = Conv (r, v)", {"a", "r"}),
    "no rectifier": ("a = Conv {p} (x, w, b) y = Conv (a, v, d)", {"a"}),
    "pooling": (
        (
            "a = Conv {p} (x, w, b) m = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (a) "
            "n = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (m) y = Conv (n, v, d)"
        ),
        {"a", "m", "n"},
    ),
    "residual": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv {p} (r, sq) s = Add (c, r) t = Relu (s) y = Conv (t, v, d)",
        {"a", "r", "c", "s", "t"},
    ),
    "twice the same": ("a = Conv {p} (x, w, b) s = Add (a, a) y = Conv (s, v, d)", {"a", "s"}),
    "a gate added, of shape (N, C, 1, 1)": (
        "a = Conv {p} (x, w, b) g = GlobalAveragePool (a) c = Conv (g, sq1) s = Add (a, c) y = Conv (s, v, d)",
        {"a", "g", "c", "s"},
    ),
    "ReLU6 keeps its scale": ("a = Conv {p} (x, w, b) r = Clip (a, zero, six) y = Conv (r, v, d)", _NONE),
    "Sigmoid keeps its scale": ("a = Conv {p} (x, w, b) r = Sigmoid (a) y = Conv (r, v, d)", _NONE),
    "Softmax keeps its scale": ("a = Conv {p} (x, w, b) r = Softmax <axis=1> (a) y = Conv (r, v)", _NONE),
    "a constant is added": ("a = Conv {p} (x, w, b) r = Add (a, six) y = Conv (r, v, d)", _NONE),
    "a product of two": (
        "a = Conv {p} (x, w, b) c = Conv {p} (x, w2) r = Mul (a, c) y = Conv (r, v, d)",
        _NONE,
    ),
    "joined": ("a = Conv {p} (x, w, b) c = Conv {p} (x, w2) r = Concat <axis=1> (a, c) y = Conv (r, v16)", _NONE),
    "behind BatchNormalization": (
        "a = Conv {p} (x, w, b) n = BatchNormalization (a, gamma, beta, mu, var) r = Relu (n) y = Conv (r, v, d)",
        {"a", "n", "r"},
    ),
    "of BatchNormalization alone": (
        (
            "a = Conv {p} (x, w, b) q = Relu (a) s = Sigmoid (q) "
            "n = BatchNormalization (s, gamma, beta, mu, var) r = Relu (n) y = Conv (r, v, d)"
        ),
        {"n", "r"},
    ),
    "groups": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv <pads=[1,1,1,1], group=4> (r, g4) t = Relu (c) y = Conv (t, v)",
        {"a", "r", "c", "t"},
    ),
    "depthwise": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv <pads=[1,1,1,1], group=8> (r, g8) t = Relu (c) y = Conv (t, v)",
        {"a", "r", "c", "t"},
    ),
    "channel multiplier": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv <group=8> (r, m16) y = Conv (c, v16)",
        {"a", "r", "c"},
    ),
    "one channel keeps its scale": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv (r, to1) y = Conv (c, from1)",
        {"a", "r"},
    ),
    "an addition that broadcasts channels": (
        "a = Conv {p} (x, w, b) c = Conv {p} (x, one) s = Add (a, c) y = Conv (s, v)",
        _NONE,
    ),
    "an addition that broadcasts channels of zeros": (
        "a = Conv {p} (x, w, b) c = Conv {p} (x, zeros1) s = Add (a, c) y = Conv (s, v)",
        _NONE,
    ),
    "a weight that two layers share": (
        (
            "a = Conv {p} (x, w, b) r = Relu (a) c = Conv {p} (r, sq) t = Relu (c) h = Conv {p} (t, sq) u = Relu (h) "
            "y = Conv (u, v)"
        ),
        _NONE,
    ),
    "a bias that two layers share": (
        "a = Conv {p} (x, w, b) r = Relu (a) c = Conv {p} (r, sq, b) t = Relu (c) y = Conv (t, v)",
        {"a", "r", "c", "t"},
    ),
    "a constant of a node": (
        "k = Constant <value = float[1] {{0.5}}> () a = Conv {p} (x, w, b) r = Relu (a) z = Conv (r, v) y = Mul (z, k)",
        {"a", "r"},
    ),
    "padded to the same size": (
        'a = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w, b) r = Relu (a) y = Conv (r, v)',
        {"a", "r"},
    ),
}


def _more(seed: int = 0) -> dict[str, np.ndarray]:
    return {
        "w2": convolution(8, 3, seed=seed + 1),
        "v16": convolution(4, 16, 1),
        "sq": convolution(8, 8),
        "sq1": convolution(8, 8, 1),
        "g4": convolution(8, 2),
        "g8": convolution(8, 1),
        "m16": convolution(16, 1, 1),
        "to1": convolution(1, 8, 1),
        "from1": convolution(4, 1, 1),
        "one": convolution(1, 3),
        "zeros1": np.zeros((1, 3, 3, 3), np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        "gamma": vector(8, seed=2),
        "beta": vector(8, seed=3),
        "mu": vector(8, seed=4),
        "var": np.abs(vector(8, seed=5)) + np.float32(0.1),
    }


def _chain(body: str, *, seed: int = 0) -> ir.Model:
    text, weights = body.format(p=_PAD), _weights(seed=seed) | _more(seed)
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return graph(text, {name: array for name, array in weights.items() if name in words})


@pytest.mark.parametrize(("body", "scaled"), _CHAINS.values(), ids=_CHAINS)
def test_which_operators_a_factor_passes(body: str, scaled: set[str]) -> None:
    result = _assert_scaled(_chain(body), images(3))
    assert set(result.factors) == scaled
    assert all((factors < 0.9).any() for factors in result.factors.values())  # so something was scaled


@pytest.mark.slow
@given(st.sampled_from([body for body, scaled in _CHAINS.values() if scaled]), st.integers(1, 2**16))
@settings(max_examples=25)
def test_any_weights(body: str, seed: int) -> None:
    _assert_scaled(_chain(body, seed=seed), images(2, seed=seed), tolerance=2e-5)


_HEADS = {
    # pictures of one pixel have a column for each channel
    "of one pixel": ("g = GlobalAveragePool (r) f = Flatten (g) y = Gemm <transB=1> (f, f1, e)", True),
    "of one pixel, counted from the end": (
        "g = GlobalAveragePool (r) f = Flatten <axis=-3> (g) y = Gemm <transB=1> (f, f1, e)",
        True,
    ),
    "of 2×2 pixels": (
        "g = AveragePool <kernel_shape=[8,8], strides=[8,8]> (r) f = Flatten (g) y = Gemm <transB=1> (f, f4, e)",
        False,
    ),
    "a row for each channel": (
        "g = GlobalAveragePool (r) f = Flatten <axis=2> (g) y = Gemm <transB=1> (f, f0, e)",
        False,
    ),
    "a weight the other way round": ("g = GlobalAveragePool (r) f = Flatten (g) y = Gemm (f, f1t, e)", False),
    "a factor before the product": (
        "g = GlobalAveragePool (r) f = Flatten (g) y = Gemm <transB=1, alpha=0.5, beta=2.0> (f, f1, e)",
        True,
    ),
}


@pytest.mark.parametrize(("head", "passes"), _HEADS.values(), ids=_HEADS)
def test_heads(head: str, passes: bool) -> None:
    weights = _weights()
    f1 = weights["f"]
    heads = {"f1": f1, "f1t": f1.T.copy(), "f4": f1.repeat(4, axis=1), "f0": f1[:, :1].copy(), "e": weights["e"]}
    used = {name: array for name, array in heads.items() if f" {name}" in head}
    body = f"a = Conv {_PAD} (x, w, b) r = Relu (a) {head}"
    model = graph(body, {"w": weights["w"], "b": weights["b"]} | used, outputs=_LINEAR)
    result = _assert_scaled(model, images(3))
    assert set(result.factors) == ({"a", "r", "g", "f"} if passes else set())


@pytest.mark.parametrize("bias", [(5,), (1, 5), (1, 1), (1,)])
def test_biases_of_linear_layers_in_all_their_shapes(bias: tuple[int, ...]) -> None:
    weights = _weights()
    hidden = {"w": weights["w"], "h": weights["f"], "k": np.full(bias, 0.3, np.float32), "o": convolution(3, 5, 1)}
    hidden["o"] = hidden["o"][:, :, 0, 0]
    body = (
        f"a = Conv {_PAD} (x, w) r = Relu (a) g = GlobalAveragePool (r) f = Flatten (g) "
        "l = Gemm <transB=1> (f, h, k) t = Relu (l) y = Gemm <transB=1> (t, o)"
    )
    result = _assert_scaled(graph(body, hidden, outputs=_LINEAR), images(3))
    assert {"l", "t"} <= set(result.factors)


def test_a_linear_layer_added_to_pictures_is_no_channel_of_theirs() -> None:
    """Its columns are the pictures' columns, though there are as many as channels."""
    weights = {"w": _weights()["w"], "v": convolution(4, 8), "k": convolution(8, 8, 1)[:, :, 0, 0]}
    body = (
        "a = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w) r = Relu (a) g = GlobalAveragePool (r) f = Flatten (g) "
        "l = Gemm <transB=1> (f, k) h = Relu (l) s = Add (r, h) y = Conv (s, v)"
    )
    model = graph(body, weights, inputs="float[1, 3, 16, 16] x", outputs="float[1, C, H, W] y")
    assert not _assert_scaled(model, images(1)).factors


def test_an_output_in_the_middle_keeps_its_scale() -> None:
    body = f"a = Conv {_PAD} (x, w, b) r = Relu (a) c = Conv {_PAD} (r, q) s = Relu (c) y = Conv (s, v)"
    weights = {name: _weights()[name] for name in "wbv"} | {"q": convolution(8, 8)}
    both = "float[N, C, H, W] y, float[N, 8, 16, 16] r"
    result = _assert_scaled(graph(body, weights, outputs=both), images(3))
    assert set(result.factors) == {"c", "s"}


def test_what_a_branch_reads_keeps_its_scale() -> None:
    body = (
        f"a = Conv {_PAD} (x, w, b) r = Relu (a) z = Conv (r, v) k = Constant <value = bool {{1}}> () "
        "i = If (k) <then_branch = yes () => (float[N, 8, 16, 16] t) { t = Sigmoid (r) }, "
        "else_branch = no () => (float[N, 8, 16, 16] e) { e = Relu (r) }> y = GlobalAveragePool (i) u = Relu (z)"
    )
    weights = {name: _weights()[name] for name in "wbv"}
    model = graph(body, weights, outputs="float[N, C, H, W] y, float[N, D, I, J] u")
    result = equalize(model, calibrate(model, [images(2)]))
    assert not {"a", "r"} & set(result.factors)
    for plain, scaled in zip(run(model, images(2)), run(result.model, images(2)), strict=True):
        assert _relative(plain, scaled) <= _TOLERANCE


def test_channels_that_are_never_used_stay_as_they_are() -> None:
    weights = _weights()
    weights["b"][2] = -100  # behind the ReLU it is always zero
    weights["w"][5], weights["b"][5] = 0, 0
    model = graph(
        f"a = Conv {_PAD} (x, w, b) r = Relu (a) y = Conv (r, v)", {name: weights[name] for name in ("w", "b", "v")}
    )
    result = _assert_scaled(model, images(3))
    assert [result.factors["r"][channel] for channel in (2, 5)] == [1, 1]


def test_a_channel_that_is_hardly_used_gets_the_smallest_factor() -> None:
    model = graph(f"a = Conv {_PAD} (x, w) y = Conv (a, v)", {"w": convolution(2, 3), "v": convolution(4, 2)})
    table = _table(model, {"x": [(-1, 1)] * 3, "a": [(0, 8.0), (0, 1e-30)]})
    np.testing.assert_array_equal(equalize(model, table).factors["a"], [1, _SMALLEST])


def test_a_tensor_that_is_always_zero_keeps_its_scale() -> None:
    weights = {"w": np.zeros((8, 3, 3, 3), np.float32), "v": convolution(4, 8), "d": vector(4)}
    model = graph(f"a = Conv {_PAD} (x, w) r = Relu (a) y = Conv (r, v, d)", weights)
    result = equalize(model, calibrate(model, [images(2)]))
    assert not result.factors
    np.testing.assert_array_equal(run(model, images(2))[0], run(result.model, images(2))[0])


def test_the_float_model_is_left_as_it_was() -> None:
    model = exported("cifar_resnet8")
    before = model_hash(model)
    equalize(model, calibrate(model, [pictures(2)]))
    assert model_hash(model) == before


# factors and ranges

_ENDS = st.lists(
    st.tuples(st.floats(-100, 0, width=32), st.floats(0, 100, width=32)), min_size=6, max_size=6
)  # of three channels of two tensors


def _table(model: ir.Model, channels: Mapping[str, list[tuple[float, float]]]) -> CalibrationTable:
    seen = {name: TensorStatistics.of(np.float32([ends]).transpose(0, 1, 2)) for name, ends in channels.items()}
    return CalibrationTable(model_sha256=model_hash(model), images=1, tensors=seen)


@given(_ENDS)
@settings(max_examples=50)
def test_no_end_grows_and_no_smaller_factor_would_do(ends: list[tuple[float, float]]) -> None:
    weights = {"w": convolution(3, 3), "q": convolution(3, 3, seed=1), "v": convolution(4, 3)}
    body = f"a = Conv {_PAD} (x, w) c = Conv {_PAD} (x, q) s = Add (a, c) y = Conv (s, v)"
    model = graph(body, weights)
    table = _table(model, {"x": [(-1, 1)] * 3, "a": ends[:3], "c": ends[3:]})
    result = equalize(model, table)
    if not result.factors:
        assert not any(map(any, ends))
        return
    assert set(result.factors) == {"a", "c", "s"}
    factors = result.factors["a"]
    attained = np.zeros(3)
    for name in ("a", "c"):
        seen = table.tensors[name]
        now = result.range_of(name, table, seen.range)
        # a factor is rounded to float32
        assert now.low >= seen.low * (1 + 1e-6)
        assert now.high <= seen.high * (1 + 1e-6)
        for by_channel, end in ((seen.channel_lows, seen.low), (seen.channel_highs, seen.high)):
            if end:
                attained = np.maximum(attained, np.array(by_channel) / factors / end)
    # each channel reaches an end of one of the tensors, is always zero, or has the smallest factor there is
    zero = attained == 0
    assert (factors[zero] == 1).all()
    np.testing.assert_allclose(attained[~zero & (factors > _SMALLEST)], 1, rtol=1e-6)
    assert (attained[factors == _SMALLEST] <= 1 + 1e-6).all()


def test_a_chosen_range_stays_the_same_share_of_the_whole() -> None:
    model = graph(f"a = Conv {_PAD} (x, w) y = Conv (a, v)", {"w": convolution(2, 3), "v": convolution(4, 2)})
    table = _table(model, {"x": [(-1, 1)] * 3, "a": [(-4.0, 8.0), (-1.0, 2.0)]})
    result = equalize(model, table)
    np.testing.assert_array_equal(result.factors["a"], [1, 0.25])
    assert result.range_of("a", table, TensorRange(-3.0, 4.0)) == TensorRange(-3.0, 4.0)
    assert result.range_of("x", table, TensorRange(-0.5, 0.5)) == TensorRange(-0.5, 0.5)


# so the tests above can fail


def test_a_factor_on_the_wrong_side_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scale_layer = equalization.scale_layer

    def the_other_way_round(node: ir.Node, before: np.ndarray | None, after: np.ndarray | None) -> None:
        scale_layer(node, after, before) if node.name == "middle" else scale_layer(node, before, after)

    body = f"a = Conv {_PAD} (x, w, b) r = Relu (a) c = Conv {_PAD} (r, q) t = Relu (c) y = Conv (t, v)"
    weights = {name: _weights()[name] for name in "wbv"} | {"q": convolution(8, 8)}
    model = graph(body, weights)
    next(node for node in model.graph if node.outputs[0].name == "c").name = "middle"
    _assert_scaled(model, images(2))
    monkeypatch.setattr(equalization, "scale_layer", the_other_way_round)
    with pytest.raises(AssertionError):
        _assert_scaled(model, images(2))


def test_a_factor_that_an_operator_does_not_pass_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalization, "_PASSING", (*equalization._PASSING, "Sigmoid"))
    with pytest.raises(AssertionError):
        _assert_scaled(_chain(_CHAINS["Sigmoid keeps its scale"][0]), images(2))


@pytest.mark.parametrize("count", [1, 40, 400])
def test_few_images_leave_room_for_others(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    weights = _weights()
    model = graph(f"a = Conv {_PAD} (x, w, b) r = Relu (a) y = Conv (r, v)", {name: weights[name] for name in "wbv"})
    table = calibrate(model, [images(count)])
    full = equalize(model, table).factors["r"]
    monkeypatch.setattr("rexport.quantization.equalization._UNSEEN", 40)
    np.testing.assert_allclose(equalize(model, table).factors["r"], np.minimum(full * (1 + 40 / count), 1), rtol=1e-6)
