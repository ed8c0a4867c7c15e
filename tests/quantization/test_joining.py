"""Projections that are one with the convolution they are added to: the same function, and integers of one scale."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import UsageError
from rexport.calibration import Calibrator, calibrate
from rexport.model_file import to_bytes
from rexport.passes._graph import constant
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, quantize, recover
from rexport.quantization.equalization import Equalized, equalize
from rexport.quantization.joining import join_projections
from rexport.quantization.plan import plan
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, images, named, run, run_exposed, vector
from tests.quantization._tables import exported, pictures, sqnr_db

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.quantization.targets import Target

# of bottleneck blocks, and their projections: with a stride, behind a pooling, behind a rectifier
_RESNEXT = "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]"
_NETWORKS = {
    _RESNEXT: 3,
    "resnet[depth=11,stages=3,block=bottleneck,stem=deep,downsample=pool,stem_width=16,input_size=32]": 2,
    "preact_resnet[depth=11,stages=3,block=bottleneck,stem_width=16,input_size=32]": 3,
}
# float32 has 2⁻²⁴ = 6e-8; scaled weights are rounded once more, and sums of some hundred products make 1e-6 of it
_TOLERANCE = 5e-6

_STEM = "s = Conv <pads=[1,1,1,1]> (x, stem) t = Relu (s)"
_BRANCH = "a = Conv (t, w1, b1) b = Relu (a) c = Conv <pads=[1,1,1,1], strides=[2,2]> (b, w2, b2) d = Relu (c)"
_END = "e = Conv (d, w3, b3) f = Conv <strides=[2,2]> (t, v) g = Add (e, f) h = Relu (g)"
_WEIGHTS = {
    "stem": convolution(6, 3),
    "w1": convolution(8, 6, 1),
    "b1": vector(8),
    "w2": convolution(8, 8),
    "b2": vector(8, seed=1),
    "w3": convolution(10, 8, 1),
    "b3": vector(10),
    "v": convolution(10, 6, 1),
    "last": convolution(4, 10, 1),
}


def _joined(model: ir.Model, x: np.ndarray, target: Target = X86, **options: object) -> Equalized:
    table = calibrate(model, [x])
    equalized = equalize(model, table)
    planned = plan(model, table, target=target, calibrator=Calibrator.MINMAX, equalized=equalized, **options)
    return join_projections(equalized, planned, table)


def _block(*parts: str, weights: dict[str, np.ndarray] | None = None) -> ir.Model:
    """Return a model of such parts, the nodes called as their results."""
    return named(graph(" ".join([*parts, "y = Conv (h, last)"]), _WEIGHTS | (weights or {})))


def _assert_same(model: ir.Model, result: Equalized, x: np.ndarray) -> None:
    (expected,), (actual,) = run(model, x), run(result.model, x)
    assert np.abs(actual - expected).max() <= _TOLERANCE * np.abs(expected).max()


# the algebra


@pytest.mark.slow
@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    stride=st.sampled_from([1, 2, 3]),
    widths=st.tuples(*[st.integers(2, 9)] * 3),
    rectified=st.tuples(st.booleans(), st.booleans()),
    biased=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    swapped=st.booleans(),
)
def test_a_joined_block_is_the_same_function(
    seed: int,
    stride: int,
    widths: tuple[int, int, int],
    rectified: tuple[bool, bool],
    biased: tuple[bool, bool, bool],
    swapped: bool,
) -> None:
    wide, hidden, out = widths
    biases = {f"b{n}": vector(c, seed=seed) for n, c, b in zip((2, 3, 4), (hidden, out, out), biased, strict=True) if b}
    weights = {
        "stem": convolution(wide, 3, seed=seed),
        "w2": convolution(hidden, wide, seed=seed) * 30,  # so that the scales to be made one are far apart
        "w3": convolution(out, hidden, 1, seed=seed),
        "v": convolution(out, wide, 1, seed=seed),
        "last": convolution(3, out, 1, seed=seed),
    } | biases
    inner = "d = Relu (c)" if rectified[0] else "d = Conv (c, one)"
    weights |= {} if rectified[0] else {"one": np.eye(hidden, dtype=np.float32).reshape(hidden, hidden, 1, 1)}
    bias = {n: f", b{n}" if f"b{n}" in biases else "" for n in (2, 3, 4)}
    model = _block(
        _STEM,
        f"c = Conv <pads=[1,1,1,1], strides=[{stride},{stride}]> (t, w2{bias[2]})",
        inner,
        f"e = Conv (d, w3{bias[3]})",
        f"f = Conv <strides=[{stride},{stride}]> (t, v{bias[4]})",
        "g = Add (f, e)" if swapped else "g = Add (e, f)",
        "h = Relu (g)" if rectified[1] else "h = Sigmoid (g)",
        weights=weights,
    )
    x = images(4, seed=seed)
    result = _joined(model, x)
    # of a hidden tensor of both signs the zero point is another than that of a rectified one
    assert result.joined == (("g",) if rectified[0] else ())
    _assert_same(model, result, x)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [*_NETWORKS.items(), ("cifar_resnet8", 0)])
def test_networks(name: str, count: int) -> None:
    model, x = exported(name), pictures(8)
    result = _joined(model, x)
    assert len(result.joined) == count
    _assert_same(model, result, x)
    before, after = (Counter(node.op_type for node in each.graph) for each in (model, result.model))
    assert before["Add"] - after["Add"] == before["Conv"] - after["Conv"] == count


# what is left as it is


@pytest.mark.parametrize(
    ("branch", "end", "weights"),
    [
        pytest.param(_BRANCH, _END.replace("h = Relu (g)", "k = Relu (g) h = Add (k, e)"), {}, id="read twice"),
        pytest.param(_BRANCH, f"{_END} j = Sigmoid (d) z = Identity (j)", {}, id="hidden tensor read twice"),
        pytest.param(_BRANCH, _END.replace("Conv (d", "Conv <group=2> (d"), {"w3": convolution(10, 4, 1)}, id="groups"),
        pytest.param(
            _BRANCH,
            _END.replace("Conv (d", "Conv <pads=[1,1,1,1]> (d"),
            {"w3": convolution(10, 8)},
            id="a 3×3 convolution",
        ),
        pytest.param(
            _BRANCH,
            _END.replace("<strides=[2,2]> (t", "<strides=[2,2], pads=[1,1,1,1]> (t"),
            {"v": convolution(10, 6, 3)},
            id="a 3×3 projection",
        ),
        pytest.param(
            _BRANCH.replace("d = Relu (c)", "d = Clip (c, low, high)"),
            _END,
            {"low": np.float32(0), "high": np.float32(0.5)},
            id="a cap, which no factor passes",
        ),
        pytest.param(
            _BRANCH.replace("c = ", "k = ").replace("Relu (c)", "Sigmoid (k)"),
            _END,
            {},
            id="no convolution before",
        ),
        pytest.param(
            _BRANCH.replace("strides=[2,2]", "strides=[1,1]"),
            _END.replace("Conv (d", "Conv <strides=[2,2]> (d"),
            {},
            id="a stride in the last convolution",
        ),
        pytest.param(
            _BRANCH,
            _END.replace("Conv <strides=[2,2]> (t, v)", "MaxPool <kernel_shape=[2,2], strides=[2,2]> (t)"),
            {"w3": convolution(6, 8, 1), "b3": vector(6), "last": convolution(4, 6, 1)},
            id="no projection",
        ),
    ],
)
def test_other_blocks_are_left(branch: str, end: str, weights: dict[str, np.ndarray]) -> None:
    model, x = _block(_STEM, branch, end, weights=weights), images(4)
    result = _joined(model, x)
    assert not result.joined
    _assert_same(model, result, x)


def test_inputs_of_other_zero_points_are_left() -> None:
    """They can't have one scale and one zero point without a loss."""
    model, x = _block(_STEM.replace("t = Relu (s)", "t = LeakyRelu (s)"), _BRANCH, _END), images(4)
    assert not _joined(model, x).joined
    assert _joined(model, x, ARM).joined == ()
    rectified = _block(_STEM, _BRANCH, _END)
    assert _joined(rectified, x).joined == _joined(rectified, x, ARM).joined == ("g",)


@pytest.mark.parametrize(
    "dead", [{"w2": 0 * _WEIGHTS["w2"], "b2": -np.ones(8, np.float32)}, {"stem": 0 * _WEIGHTS["stem"]}]
)
def test_tensors_that_are_always_zero_are_left(dead: dict[str, np.ndarray]) -> None:
    """Their scale says nothing, and with a factor made of it the other's weights would lose their bits."""
    assert not _joined(_block(_STEM, _BRANCH, _END, weights=dead), images(4)).joined


@pytest.mark.parametrize("layer", ["c", "e", "f", "g"])
def test_blocks_with_a_float_layer_are_left(layer: str) -> None:
    model, x = _block(_STEM, _BRANCH, _END), images(8)
    table = calibrate(model, [x])
    recovered = recover(model, table, target=X86, keep_float={layer})
    assert not recovered.equalized.joined
    result = quantize(model, table, target=X86, recovered=recovered, keep_float={layer})
    assert {one.name for one in result.layers if one.precision != "int8"} == {layer, "y"}


def test_a_layer_that_is_gone_cannot_be_kept_in_float() -> None:
    model, x = _block(_STEM, _BRANCH, _END), images(8)
    table = calibrate(model, [x])
    with pytest.raises(UsageError, match="pass keep_float to recover too"):
        quantize(model, table, target=X86, recovered=recover(model, table, target=X86), keep_float={"f"})


# the files


@pytest.mark.parametrize("calibrator", [Calibrator.MINMAX, Calibrator.ENTROPY])
@pytest.mark.parametrize("target", [X86, ARM, OPENVINO, X86.with_reduced_range()], ids=lambda target: target.name)
def test_what_is_concatenated_has_one_scale(target: Target, calibrator: Calibrator) -> None:
    """Else ONNX Runtime's concatenation would look every integer up in a table; and weights are for one scale."""
    model, x = exported(_RESNEXT), pictures(16)
    table = calibrate(model, [x])
    recovered = recover(model, table, target=target, calibrator=calibrator)
    result = quantize(model, table, target=target, calibrator=calibrator, recovered=recovered).model
    found = [node for node in result.graph if node.op_type == "Concat"]
    assert len(found) == 3
    for node in found:
        (reader,) = node.outputs[0].consumers()
        around = [reader, *(value.producer() for value in node.inputs if value is not None)]
        parameters = {tuple(float(constant(one.inputs[i]).item()) for i in (1, 2)) for one in around}  # type: ignore[union-attr]
        assert len(parameters) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), _NETWORKS.items())
def test_all_of_it_runs_on_integers_and_additions_are_saved(name: str, count: int) -> None:
    model, x = exported(name), pictures(16)
    table = calibrate(model, [x])
    recovered = recover(model, table, target=X86, images=lambda: [x], total=len(x))
    assert len(recovered.equalized.joined) == count
    assert set(recovered.equalized.joined) <= set(recovered.weights)
    assert f"{count} projections joined" in str(recovered)
    plain, joined = (quantize(model, table, target=X86, recovered=each) for each in (None, recovered))
    before, after = (executed_ops(to_bytes(each.model)) for each in (plain, joined))
    saved = {op: before.get(op, 0) - after.get(op, 0) for op in ("QLinearAdd", "QLinearConv")}
    assert saved == {"QLinearAdd": count, "QLinearConv": count}
    assert after["QLinearConcat"] == count
    assert not {"Conv", "Concat", "MaxPool", "Add"} & after.keys()
    (exact,) = run(model, x)
    assert sqnr_db(exact, run(joined.model, x)[0]) > sqnr_db(exact, run(plain.model, x)[0])


@pytest.mark.slow
def test_no_range_is_cut_by_it() -> None:
    """The hidden tensor fills the integers of the scale that it was given, as it did its own."""
    model, x = exported(_RESNEXT), pictures(16)
    result = _joined(model, x)
    for name, other in result.scaled_as.items():
        if name in result.factors:  # the hidden one, not the concatenation
            (hidden, source) = run_exposed(result.model, x, [name, other])
            assert 0.5 < hidden.max() / source.max() < 2


def test_tensorrt_adds_in_the_convolution() -> None:
    model = exported(_RESNEXT)
    assert not recover(model, calibrate(model, [pictures(4)]), target=TENSORRT).equalized.joined
