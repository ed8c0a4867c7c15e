"""float16 inside, float32 outside."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from rexport._errors import ModelFileError
from rexport.model_file import Metadata, to_bytes
from rexport.passes.float16 import LARGEST_SAFE, require_float32, with_float16
from tests._graphs import convolution, graph, images, run, vector

_PAD = "<pads=[1,1,1,1]>"
_WEIGHTS = {"w": convolution(4, 3), "b": vector(4), "v": convolution(4, 4)}
_BODY = f"a = Conv {_PAD} (x, w, b) r = Relu (a) c = Conv {_PAD} (r, v) s = Add (c, r) y = Tanh (s)"


def _ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _checked(model: ir.Model) -> ir.Model:
    onnx.checker.check_model(to_bytes(model), full_check=True)
    return model


def _reference(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """Return what ONNX's reference computes, in float16 where the file says so; ONNX Runtime on x86 does not."""
    (result,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    return np.asarray(result)


def test_the_same_numbers_but_for_rounding() -> None:
    model = graph(_BODY, _WEIGHTS)
    result = with_float16(model)
    assert _ops(_checked(result.model)) == ["Cast", "Conv", "Relu", "Conv", "Add", "Tanh", "Cast"]
    assert [(v.name, v.dtype) for v in result.model.graph.inputs] == [("x", ir.DataType.FLOAT)]
    assert [(v.name, v.dtype) for v in result.model.graph.outputs] == [("y", ir.DataType.FLOAT)]
    assert {v.dtype for v in result.model.graph.initializers.values()} == {ir.DataType.FLOAT16}
    x = images(2)
    expected = run(model, x)[0]
    # each number is rounded by at most 2⁻¹¹, and there are five operators in a row
    assert np.abs(_reference(result.model, x) - expected).max() < 5 * 2**-10
    assert np.abs(run(result.model, x)[0] - expected).max() < 5 * 2**-10
    assert (result.kept, dict(result.vanished)) == ((), {})


def test_a_tensor_that_is_too_large_keeps_its_layers_in_float32() -> None:
    body = f"a = Conv {_PAD} (x, w) m = Mul (a, k) n = Mul (m, l) c = Conv {_PAD} (n, v) y = Tanh (c)"
    scales = {
        "k": np.float32(6e4).reshape(()),
        "l": np.float32(1e-5).reshape(()),
    }  # which fit, and the product does not
    weights = {"w": _WEIGHTS["w"], "v": _WEIGHTS["v"], **scales}
    model, x = graph(body, weights), images(2)
    expected = run(model, x)[0]
    assert not np.isfinite(_reference(with_float16(model).model, x)).all()  # what the check is for
    result = with_float16(model, largest={"a": 4.0, "m": 2.4e5, "n": 2.4})
    assert {layer.name: layer.why for layer in result.kept} == dict.fromkeys(
        ("m", "n"), "'m' reaches 240,000, and float16 ends at 65,504"
    )
    assert np.abs(_reference(_checked(result.model), x) - expected).max() < 0.01
    assert "m" in str(Metadata.of(result.model).precision)


@pytest.mark.parametrize(("share", "kept"), [(0.99, False), (1.01, True)])
def test_there_is_room_for_images_not_seen(share: float, kept: bool) -> None:
    result = with_float16(graph(_BODY, _WEIGHTS), largest={"s": share * LARGEST_SAFE})
    assert {layer.name for layer in result.kept} == ({"s", "y"} if kept else set())


def test_a_weight_that_is_too_large_keeps_its_layer_in_float32() -> None:
    result = with_float16(graph(_BODY, _WEIGHTS | {"b": np.float32([1e5, 0, 0, 0])}))
    (layer,) = result.kept
    assert (layer.name, layer.why) == ("a", "'b' reaches 100,000, and float16 ends at 65,504")
    assert _ops(_checked(result.model)) == ["Conv", "Cast", "Relu", "Conv", "Add", "Tanh", "Cast"]


def test_weights_that_become_zero_are_counted() -> None:
    weight = _WEIGHTS["v"].copy()
    weight[0, 0] = 1e-9
    assert dict(with_float16(graph(_BODY, _WEIGHTS | {"v": weight})).vanished) == {"v": 9}


def test_a_layer_can_be_kept() -> None:
    result = with_float16(graph(_BODY, _WEIGHTS), keep_float={"c"})
    assert [layer.why for layer in result.kept] == ["it was asked to stay in float32"]
    _checked(result.model)
    x = images(2)
    assert np.abs(run(result.model, x)[0] - run(graph(_BODY, _WEIGHTS), x)[0]).max() < 5 * 2**-10


def test_a_weight_of_two_layers_is_kept_for_one_and_converted_for_the_other() -> None:
    body = f"a = Conv {_PAD} (x, w) b = Conv {_PAD} (a, w) y = Tanh (b)"
    result = with_float16(graph(body, {"w": convolution(3, 3)}), keep_float={"a"})
    types = sorted(str(value.dtype) for value in _checked(result.model).graph.initializers.values())
    assert types == ["FLOAT", "FLOAT16"]


def test_bounds_of_a_clip_are_converted_with_it() -> None:
    constants = {"low": np.float32(0).reshape(()), "high": np.finfo(np.float32).max.reshape(())}
    result = with_float16(graph("a = Clip (x, low, high) y = Tanh (a)", constants))
    assert result.kept == ()
    x = images(1)
    assert np.abs(_reference(_checked(result.model), x) - np.tanh(x.clip(0))).max() < 2**-10


def test_constants_and_types_that_nodes_name_are_converted() -> None:
    body = (
        "k = Constant <value_float=2.0> () a = Mul (x, k) i = Cast <to=7> (a) f = Cast <to=1> (i) "
        "n = Shape (x) o = ConstantOfShape <value = float[1] {1.0}> (n) p = Add (f, o) y = Tanh (p)"
    )
    result = with_float16(graph(body))
    assert (result.kept, _ops(_checked(result.model)).count("Cast")) == ((), 4)
    x = images(1)
    np.testing.assert_allclose(_reference(result.model, x), np.tanh(np.trunc(2 * x) + 1), atol=2**-10)


def test_scales_of_a_resize_stay_float32() -> None:
    body = 'a = Resize <mode="nearest"> (x, , s) y = Tanh (a)'
    result = with_float16(graph(body, {"s": np.float32([1, 1, 2, 2])}))
    assert result.kept == ()
    assert result.model.graph.initializers["s"].dtype == ir.DataType.FLOAT
    assert run(_checked(result.model), images(1))[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("opset", "kept"), [(17, True), (20, False)])
def test_integers_are_dequantized_to_float16_where_onnx_has_it(opset: int, kept: bool) -> None:
    constants = {"s": np.float32(0.02).reshape(()), "z": np.int8(0).reshape(())}
    body = f"q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) a = Conv {_PAD} (d, w) y = Tanh (a)"
    result = with_float16(graph(body, constants | {"w": _WEIGHTS["w"]}, opset=opset))
    assert [layer.op_type for layer in result.kept] == (["QuantizeLinear", "DequantizeLinear"] if kept else [])
    assert run(_checked(result.model), images(1))[0].shape == (1, 4, 16, 16)


def test_an_output_that_is_read_too_keeps_its_name() -> None:
    model = graph("y = Relu (x) z = Tanh (y)", outputs="float[N, C, H, W] y, float[N, C, H, W] z")
    result = with_float16(model).model
    assert [value.name for value in _checked(result).graph.outputs] == ["y", "z"]
    x = images(1)
    for expected, actual in zip(run(model, x), run(result, x), strict=True):
        assert np.abs(actual - expected).max() < 2**-9


def test_what_is_in_float16_already_is_refused() -> None:
    half = with_float16(graph(_BODY, _WEIGHTS)).model
    with pytest.raises(ModelFileError, match=r"m\.onnx is in float16 already; take the float32 model"):
        require_float32(half, "m.onnx")
    with pytest.raises(ModelFileError, match="in float16 already"):
        with_float16(half)


def test_what_is_stored_in_float16_and_computed_in_float32_is_float32() -> None:
    body = (
        f"v = Cast <to = 1> (w) a = Conv {_PAD} (x, v) r = Reshape (h, s) u = Cast <to = 1> (r) y = Conv {_PAD} (a, u)"
    )
    stored = {"w": _WEIGHTS["w"].astype(np.float16), "h": _WEIGHTS["v"].astype(np.float16).reshape(16, 9)}
    model = graph(body, stored | {"s": np.array([4, 4, 3, 3])})
    require_float32(model)
    assert run(_checked(with_float16(model).model), images(1))[0].shape == (1, 4, 16, 16)


@pytest.mark.parametrize(
    "body",
    [
        "h = Cast <to = 10> (x) a = Relu (h) y = Cast <to = 1> (a)",
        "h = Cast <to = 10> (x) b = Add (h, k) y = Cast <to = 1> (b)",
    ],
)
def test_what_computes_in_float16_without_weights_is_refused(body: str) -> None:
    proto = ir.to_proto(graph(body, {"k": np.float16([1])}))
    del proto.graph.value_info[:]
    with pytest.raises(ModelFileError, match="in float16 already"):
        require_float32(ir.from_proto(proto))


def test_the_model_itself_is_left_as_it_was() -> None:
    model = graph(_BODY, _WEIGHTS)
    before = to_bytes(model)
    with_float16(model)
    assert to_bytes(model) == before
