"""Files that give class probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch

from rexport._errors import VerificationError
from rexport.calibration import calibrate
from rexport.classifier_head import head_of
from rexport.exporting import export, prove_parity
from rexport.model_file import Head, Metadata, to_bytes
from rexport.preprocessing import Preprocessing
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import open_session
from tests._networks import trained_like
from tests.exporting._networks import Small, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporting.conftest import Exported


@pytest.fixture
def network(exported: Callable[..., Exported]) -> Exported:
    return exported("small", 32, head=Head.SOFTMAX)


def small() -> Small:
    torch.manual_seed(0)
    return trained_like(Small())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_the_output_is_the_softmax_of_the_logits(batch: int, network: Exported) -> None:
    with torch.inference_mode():
        logits = network.module(torch.from_numpy(pictures(batch))).numpy()
    session = open_session(to_bytes(network.result.model))
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("probabilities", ["batch", 10])
    (probabilities,) = session.run(None, {"images": pictures(batch)})
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-4)  # 2 |z| times what the logits may differ by
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_every_other_node_is_as_without_it(network: Exported, exported: Callable[..., Exported]) -> None:
    names = [node.name for node in exported("small", 32).result.model.graph]
    assert [node.name for node in network.result.model.graph] == [*names, "softmax"]
    assert network.result.model.graph.node("fc").outputs[0].name == "fc"


def test_the_file_says_so(network: Exported, exported: Callable[..., Exported]) -> None:
    assert Metadata.of(network.result.model).head is head_of(network.result.model) is Head.SOFTMAX
    logits = exported("small", 32).result.model
    assert Metadata.of(logits).head is head_of(logits) is Head.LOGITS


def test_the_proof_is_of_the_probabilities(network: Exported) -> None:
    assert list(network.result.parity.outputs) == ["probabilities"]
    assert 0 < network.result.parity.difference < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 23])
def test_every_opset_has_it(opset: int) -> None:
    options = {"head": Head.SOFTMAX, "opset": opset, "fused": False}
    assert export(small(), preprocessing=Preprocessing(size=32), **options).model.opset_imports[""] == opset


def test_softmax_over_the_wrong_axis_is_found(network: Exported) -> None:
    model = network.result.model.clone()
    model.graph.node("softmax").attributes.add(ir.AttrInt64("axis", 0))
    with pytest.raises(VerificationError, match=", output 'probabilities', max relative"):
        prove_parity(network.module, model, size=32, head=Head.SOFTMAX)


def test_missing_softmax_is_found(exported: Callable[..., Exported]) -> None:
    plain = exported("small", 32)
    with pytest.raises(VerificationError, match=", output 'logits', max relative"):
        prove_parity(plain.module, plain.result.model, size=32, head=Head.SOFTMAX)


@pytest.mark.slow
def test_a_fault_that_saturation_hides_is_found() -> None:
    module = small()
    with torch.no_grad():
        module.fc.bias[3] = 1000.0  # the probability of class 3 is 1, whatever else is wrong
    result = export(module, preprocessing=Preprocessing(size=32), head=Head.SOFTMAX)
    (probabilities,) = open_session(to_bytes(result.model)).run(None, {"images": pictures(2)})
    assert (probabilities[:, 3] == 1).all()
    model = result.model.clone()
    bias = model.graph.initializers["fc.bias"]
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1), name="fc.bias")
    with pytest.raises(VerificationError, match=r"tensor 'fc', max .* first tensor that differs is 'fc'"):
        prove_parity(module, model, size=32, head=Head.SOFTMAX)


@pytest.mark.slow
def test_large_logits_may_round_as_much_as_without_softmax() -> None:
    module = small()
    with torch.no_grad():
        module.fc.weight *= 1000
    assert export(module, preprocessing=Preprocessing(size=32), head=Head.SOFTMAX).parity.difference < 2e-6


def test_quantization_leaves_it_in_float(network: Exported) -> None:
    model = network.result.model
    int8 = quantize(model, calibrate(model, [pictures(16)]), target=X86)
    assert [layer.name for layer in int8.layers if layer.precision == "float32"] == ["softmax"]
    assert Metadata.of(int8.model).head is head_of(int8.model) is Head.SOFTMAX
    (probabilities,) = open_session(to_bytes(int8.model)).run(None, {"images": pictures(5)})
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("head", [Head.LOGITS, Head.SOFTMAX])
def test_an_ensemble_ends_in_its_average_of_probabilities(head: Head, exported: Callable[..., Exported]) -> None:
    ensemble = exported("two small", 32, head=head)
    model = ensemble.result.model
    (output,) = model.graph.outputs
    assert output.name == "probabilities"
    assert Metadata.of(model).head is head_of(model) is Head.SOFTMAX
    assert [node.op_type for node in model.graph].count("Softmax") == 2  # one for each member
    with torch.inference_mode():
        expected = ensemble.module(torch.from_numpy(pictures(3))).numpy()
    (actual,) = open_session(to_bytes(model)).run(None, {"images": pictures(3)})
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
