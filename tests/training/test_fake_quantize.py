from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import UsageError
from rexport.calibration import CalibrationTable, Calibrator, calibrate, open_dataset
from rexport.exporting import export
from rexport.model_file import Metadata, model_hash
from rexport.models import build
from rexport.preprocessing import Preprocessing
from rexport.quantization import ARM, X86, Target, quantize
from rexport.quantization.schemes import INT8, INT8_FULL, UINT8, Integers, Quantization, of_range, of_weight
from rexport.training import fake_quantize
from rexport.training._rounding import round_tensor, round_weight
from tests._graphs import convolution, graph, run
from tests._networks import export_once
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from tests._products import Products

_PREPROCESSING = Preprocessing(size=32)
_RESNEXT = "resnext[depth=29,cardinality=8,base_width=4,expansion=2,stem_width=64,stages=3,input_size=32]"


@dataclass(frozen=True)
class _Case:
    network: torch.nn.Module
    model: ir.Model
    table: CalibrationTable
    images: np.ndarray
    labels: np.ndarray


def _case(data_dir: Path, products: Products, name: str, weights: str) -> _Case:
    network = build(name, weights=data_dir / "weights" / f"{weights}.safetensors").eval()
    model = export_once(products, weights, module=network).model
    folder = data_dir / "cifar10-jpeg"
    calibration = open_dataset(folder / "calibration", _PREPROCESSING).batches(64, samples=128)
    (batch,) = open_dataset(folder / "test", _PREPROCESSING).batches(100, samples=100)
    assert batch.labels is not None
    table = calibrate(model, (one.images for one in calibration))
    return _Case(network, model, table, batch.images, batch.labels)


@pytest.fixture(scope="module")
def resnet(data_dir: Path, products: Products) -> _Case:
    return _case(data_dir, products, "cifar_resnet20", "cifar_resnet20-jpeg")


def _sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    noise = np.square(expected - actual, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise))


def _require_equal(file: np.ndarray, module: np.ndarray, floats: np.ndarray) -> None:
    """Compare with what INT8 itself costs, which is 30 to 35 dB here: an error anywhere would be of that size.

    Not equal to the last bit: sums in another order turn ties of rounding, and each turned integer is seen by all that
    comes after it. 41 dB leaves 3 of the 44 that were measured.
    """
    assert _sqnr(file, module) > max(41, _sqnr(floats, file) + 8)
    assert (file.argmax(1) == module.argmax(1)).mean() >= 0.99


def _require_module_as_file(
    model: ir.Model, table: CalibrationTable, images: np.ndarray, target: Target, calibrator: Calibrator
) -> None:
    module = fake_quantize(model, table, target=target, calibrator=calibrator)
    with torch.inference_mode():
        actual = module(torch.from_numpy(images)).numpy()
    file = quantize(model, table, target=target, calibrator=calibrator).model
    _require_equal(run(file, images)[0], actual, run(model, images)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("target", "calibrator"), [(X86, Calibrator.PERCENTILE), (ARM, Calibrator.MINMAX)])
def test_the_module_computes_as_the_file(resnet: _Case, target: Target, calibrator: Calibrator) -> None:
    _require_module_as_file(resnet.model, resnet.table, resnet.images, target, calibrator)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("name", "weights"),
    [("cifar_preact_resnet20", "cifar_preact_resnet20-jpeg"), (_RESNEXT, "cifar_resnext29-small-jpeg")],
)
def test_other_trained_networks(data_dir: Path, products: Products, name: str, weights: str) -> None:
    case = _case(data_dir, products, name, weights)
    _require_module_as_file(case.model, case.table, case.images, X86, Calibrator.MINMAX)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cifar_preact_resnet8", "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]"]
)
def test_other_blocks(name: str) -> None:
    model, images = exported(name), pictures(64)
    _require_module_as_file(model, calibrate(model, [images]), images, X86, Calibrator.MINMAX)


@pytest.mark.slow
def test_a_fine_tuned_module_is_the_file_and_the_network(resnet: _Case) -> None:
    module = fake_quantize(resnet.model, resnet.table, target=X86, network=resnet.network)
    optimizer = torch.optim.SGD(module.parameters(), lr=3e-5)  # small: without BatchNorm, gradients are large
    images, labels = torch.from_numpy(resnet.images), torch.from_numpy(resnet.labels)
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(module(images[:32]), labels[:32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained, result = module.float_model(), module.quantized()
    assert model_hash(trained) != model_hash(resnet.model)
    before = quantize(resnet.model, resnet.table, target=X86)
    assert [node.op_type for node in result.model.graph] == [node.op_type for node in before.model.graph]
    assert result.layers == before.layers
    with torch.inference_mode():
        actual = module(images).numpy()
    _require_equal(run(result.model, resnet.images)[0], actual, run(trained, resnet.images)[0])
    network = build("cifar_resnet20")
    module.write_to(network)
    written = export(network, preprocessing=_PREPROCESSING).model
    table = replace(resnet.table, model_sha256=model_hash(written))
    again = quantize(written, table, target=X86).model
    assert [(node.op_type, node.name) for node in again.graph] == [(n.op_type, n.name) for n in result.model.graph]
    # the weights are folded once more, so that they may differ in the last bit
    np.testing.assert_allclose(run(written, resnet.images)[0], run(trained, resnet.images)[0], rtol=1e-4, atol=1e-3)
    _require_equal(run(again, resnet.images)[0], actual, run(trained, resnet.images)[0])


@pytest.mark.slow
def test_every_trained_layer_has_a_gradient(resnet: _Case) -> None:
    module = fake_quantize(resnet.model, resnet.table, target=X86, network=resnet.network)
    module(torch.from_numpy(resnet.images[:8])).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert len(gradients) == 2 * 20  # 19 convolutions and the head; the shortcuts of option A have no weights
    assert all(one is not None and bool(one.abs().max() > 0) for one in gradients.values())
    assert "layer1/0/conv1/weight" in gradients


def test_the_metadata_says_how_it_was_made() -> None:
    model = exported("cifar_preact_resnet8")
    module = fake_quantize(model, calibrate(model, [pictures(2)]), target=X86)
    described = json.loads(str(Metadata.of(module.quantized().model).quantization))
    assert described["float_model_sha256"] == model_hash(module.float_model())


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    st.floats(-50, 0),
    st.floats(0.1, 50),
    st.sampled_from([UINT8, INT8, INT8_FULL]),
)
def test_tensors_are_rounded_as_quantize_linear_rounds(
    values: list[float], low: float, high: float, integers: Integers
) -> None:
    from rexport.calibration import TensorRange

    chosen: Quantization = of_range(TensorRange(low, high), integers)
    x = np.asarray(values, np.float32)
    scale, zero = chosen.scale, chosen.zero_point.astype(np.float32)
    expected = (np.clip(np.rint(x / scale) + zero, integers.low, integers.high) - zero) * scale
    tensor = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    rounded = round_tensor(tensor, torch.from_numpy(scale), torch.from_numpy(zero), (integers.low, integers.high))
    # passing + (rounded − passing) is off by a rounding of floats of at most the larger of the two
    np.testing.assert_allclose(rounded.detach().numpy(), expected, rtol=0, atol=1e-5)
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    ends = [(end - float(zero)) * float(scale) for end in (integers.low, integers.high)]
    inside = (x > ends[0] + 1e-3) & (x < ends[1] - 1e-3)
    outside = (x < ends[0] - 1e-3) | (x > ends[1] + 1e-3)
    assert tensor.grad is not None
    assert (tensor.grad.numpy()[inside] == 1).all()
    assert (tensor.grad.numpy()[outside] == 0).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_rounded_as_the_file_stores_them(axis: int) -> None:
    weight = convolution(4, 4, 3)
    weight[2] = 0
    smallest = np.full(4, 1e-3)
    chosen, integers = of_weight(weight, INT8, axis=axis, smallest_scale=smallest)
    rounded, scale = round_weight(torch.from_numpy(weight), INT8, axis=axis, smallest_scale=torch.from_numpy(smallest))
    np.testing.assert_array_equal(scale.numpy(), chosen.scale)
    others = tuple(other for other in range(4) if other != axis)
    np.testing.assert_allclose(rounded.numpy(), integers * np.expand_dims(chosen.scale, others), rtol=1e-6, atol=1e-7)


def test_an_operator_that_can_not_be_trained_is_refused() -> None:
    model = graph("a = Conv <pads=[1,1,1,1]> (x, w) y = Sigmoid (a)", {"w": convolution(3, 3)})
    table = calibrate(model, [np.ones((1, 3, 16, 16), np.float32)])
    with pytest.raises(UsageError, match="does not support the operator Sigmoid"):
        fake_quantize(model, table, target=X86)


@pytest.mark.slow
def test_layers_that_are_none_of_the_networks_are_refused(resnet: _Case) -> None:
    with pytest.raises(UsageError, match="The network has no layer"):
        fake_quantize(resnet.model, resnet.table, target=X86).write_to(build("cifar_resnet8"))
