"""The proof of INT8 files, and that it sees what is wrong with one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from rexport._errors import VerificationError
from rexport.calibration import calibrate
from rexport.evaluation.proof import Agreement, OutputProof, Pictures, Proof, Verdict, prove
from rexport.passes import fuse
from rexport.quantization import ARM, OPENVINO, TENSORRT, X86, Target, quantize
from tests._graphs import convolution, graph, set_array, vector

if TYPE_CHECKING:
    from collections.abc import Callable

_BODY = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w1) b = Relu (a) c = Conv <pads = [1, 1, 1, 1]> (b, w2) d = Add (c, b) "
    "e = Relu (d) f = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (e, w3) h = Relu (f) "
    "p = GlobalAveragePool (h) q = Flatten (p) y = Gemm <transB = 1> (q, w4, b4)"
)


def _network(batch: str = "N") -> ir.Model:
    """Return a residual classifier of 10 classes whose scores differ from picture to picture."""
    weights = {
        "w1": convolution(8, 3),
        "w2": convolution(8, 8, seed=1),
        "w3": convolution(16, 8, seed=2),
        "w4": convolution(10, 16, 1)[:, :, 0, 0] * 4,
        "b4": vector(10) * 0.1,
    }
    return graph(_BODY, weights, inputs=f"float[{batch}, 3, 16, 16] x", outputs=f"float[{batch}, 10] y")


def _pictures(count: int = 24, seed: int = 0) -> list[np.ndarray]:
    """Return smooth pictures, each of a colour of its own, in batches of eight."""
    random = np.random.default_rng(seed)
    colours = random.standard_normal((count, 3, 1, 1)) + 0.5 * random.standard_normal((count, 3, 16, 16))
    return list(colours.astype(np.float32).reshape(-1, 8, 3, 16, 16))


def _quantized(original: ir.Model, target: Target = X86) -> ir.Model:
    fused = fuse(original).model
    return quantize(fused, calibrate(fused, iter(_pictures())), target=target).model


def _proof(original: ir.Model, quantized: ir.Model, target: Target = X86) -> Proof:
    return prove(original, quantized, _pictures(), pictures=Pictures.HELD_OUT, target=target)


@pytest.mark.parametrize("target", [X86, ARM, OPENVINO, TENSORRT], ids=lambda target: target.name)
def test_a_right_file_is_good_on_every_target(target: Target) -> None:
    original = _network()
    proof = _proof(original, _quantized(original, target), target)
    assert proof.verdict is Verdict.GOOD
    assert proof.images == 24
    assert proof.worst.sqnr_db > 25
    assert abs(proof.worst.as_run_db - proof.worst.node_by_node_db) < 3
    assert proof.agreement is not None
    assert proof.agreement.share > 0.9
    assert str(proof).startswith("SQNR ")


def test_a_file_that_insists_on_a_batch_is_proven_on_every_picture() -> None:
    original = _network("3")
    proof = _proof(original, _quantized(original))
    assert (proof.images, proof.verdict) == (24, Verdict.GOOD)


def _weight(model: ir.Model, of: str) -> ir.Value:
    """Return the integers of a layer's weight."""
    node = next(node for node in model.graph if node.outputs[0].name == of)
    producer = node.inputs[1].producer()
    assert producer is not None
    value = producer.inputs[0]
    assert value is not None
    return value


def _wrong_weight(model: ir.Model) -> None:
    """Give a layer weights of the other sign; single ones are for the audit of what a file stores."""
    value = _weight(model, "c")
    set_array(value, -value.const_value.numpy())


def _swapped_channels(model: ir.Model) -> None:
    value = _weight(model, "f")
    set_array(value, value.const_value.numpy()[::-1].copy())


def _wrong_scale(model: ir.Model) -> None:
    quantize_input = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    scale = quantize_input.inputs[1]
    for usage in list(scale.uses()):
        if usage.node.op_type == "DequantizeLinear":
            wrong = ir.Value(name="wrong", shape=scale.shape, type=scale.type)
            set_array(wrong, scale.const_value.numpy() * np.float32(3))
            model.graph.register_initializer(wrong)
            usage.node.replace_input_with(1, wrong)


def _wrong_order(model: ir.Model) -> None:
    """Reorder the classes, as an operator does whose meaning changed with the opset."""
    value = _weight(model, "y")
    set_array(value, np.roll(value.const_value.numpy(), 1, axis=0))


@pytest.mark.parametrize("plant", [_wrong_weight, _swapped_channels, _wrong_scale, _wrong_order])
@pytest.mark.parametrize("target", [X86, TENSORRT], ids=lambda target: target.name)
def test_a_planted_fault_is_seen(plant: Callable[[ir.Model], None], target: Target) -> None:
    original = _network()
    quantized = _quantized(original, target)
    plant(quantized)
    assert _proof(original, quantized, target).verdict is Verdict.UNUSABLE


def test_outputs_of_another_shape_are_a_defect() -> None:
    original = _network()
    other = _quantized(graph(_BODY.replace("strides = [2, 2], ", ""), _weights_of(original), outputs="float[N, 10] y"))
    changed = other.clone()
    changed.graph.outputs[:] = [next(n.outputs[0] for n in changed.graph if n.op_type == "Flatten")]
    with pytest.raises(VerificationError, match="of shape"):
        _proof(original, changed)


def _weights_of(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def test_a_file_that_no_runtime_loads_is_refused() -> None:
    original = _network()
    quantized = _quantized(original)
    next(node for node in quantized.graph if node.op_type == "Conv").domain = "nobody"
    with pytest.raises(VerificationError, match="The runtime rejects the INT8 file"):
        _proof(original, quantized)


def _output(sqnr: float, varying: float = 30.0, as_run: float = 30.0, by_node: float = 30.0) -> OutputProof:
    return OutputProof(name="y", sqnr_db=sqnr, varying_db=varying, as_run_db=as_run, node_by_node_db=by_node)


@pytest.mark.parametrize(
    ("output", "agreement", "verdict"),
    [
        (_output(35), None, Verdict.GOOD),
        (_output(math.inf, math.inf), None, Verdict.GOOD),
        (_output(15), None, Verdict.WEAK),
        (_output(35, varying=5), None, Verdict.WEAK),
        (_output(9.9), None, Verdict.UNUSABLE),
        (_output(math.nan), None, Verdict.UNUSABLE),
        (_output(30), Agreement(images=32, same=32, judged=32), Verdict.GOOD),
        (_output(30), Agreement(images=32, same=31, judged=32), Verdict.GOOD),
        (_output(30), Agreement(images=32, same=28, judged=32), Verdict.WEAK),
        (_output(30), Agreement(images=32, same=24, judged=32), Verdict.UNUSABLE),
        (_output(30), Agreement(images=32, same=24, judged=24), Verdict.GOOD),  # the others are ties
        (_output(30), Agreement(images=4, same=3, judged=4), Verdict.WEAK),  # too few to tell
        (_output(30), Agreement(images=4, same=0, judged=0), Verdict.GOOD),
    ],
)
def test_the_verdict_follows_from_the_figures(
    output: OutputProof, agreement: Agreement | None, verdict: Verdict
) -> None:
    proof = Proof(pictures=Pictures.SEEN, images=32, runtime="", outputs=(_output(40), output), agreement=agreement)
    assert proof.verdict is verdict
    drawn = Proof(pictures=Pictures.DRAWN, images=2, runtime="", outputs=(output,), agreement=agreement)
    assert drawn.verdict is (Verdict.UNUSABLE if math.isnan(output.sqnr_db) else Verdict.UNJUDGED)


@pytest.mark.parametrize(
    ("as_run", "by_node", "differs"),
    [(30, 31, False), (24, 31, True), (41, 60, False), (math.nan, 30, True), (math.nan, math.nan, False)],
)
def test_a_runtime_differs_where_it_is_much_worse_than_the_file(as_run: float, by_node: float, differs: bool) -> None:
    assert _output(30, as_run=as_run, by_node=by_node).runtime_differs is differs


def test_a_network_of_one_class_is_not_judged_by_its_class() -> None:
    weights = _weights_of(_network())
    weights["b4"] = np.eye(10, dtype=np.float32)[0] * 100
    original = graph(_BODY, weights, outputs="float[N, 10] y")
    assert _proof(original, _quantized(original)).agreement is None


def test_numbers_that_are_no_floats_are_right_or_wrong() -> None:
    original = graph(
        _BODY.replace("y = Gemm", "z = Gemm") + " y = ArgMax <axis = 1, keepdims = 0> (z)",
        _weights_of(_network()),
        outputs="int64[N] y",
    )
    proof = _proof(original, _quantized(original))
    assert proof.worst.sqnr_db >= 10 * math.log10(24 / 2)  # two of 24 classes at most are others
    assert proof.verdict is not Verdict.UNUSABLE


def test_the_document_holds_no_infinite_number() -> None:
    proof = Proof(pictures=Pictures.HELD_OUT, images=8, runtime="", outputs=(_output(math.inf), _output(math.nan)))
    outputs = proof.to_json()["outputs"]
    assert [output["sqnr_db"] for output in outputs] == [None, None]
    assert proof.to_json()["verdict"] == "not usable"
