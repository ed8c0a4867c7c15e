"""The proof is only worth what it finds: each test plants one fault in an exported model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch

from rexport._errors import ModelFileError, VerificationError
from rexport.exporting import DEFAULT_TOLERANCE, prove_parity
from rexport.models import build
from tests._networks import trained_like

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporting.conftest import Exported


@pytest.fixture
def network(exported: Callable[..., Exported]) -> Exported:
    return exported("cifar_resnet8", 32)


def copy_of(network: Exported) -> ir.Model:
    return network.result.model.clone()


def set_weight(model: ir.Model, name: str, array: np.ndarray) -> None:
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(array, name=name)
    value.shape = ir.Shape(array.shape)


def weight_of(model: ir.Model, name: str) -> np.ndarray:
    return np.array(model.graph.initializers[name].const_value.numpy())


def blamed(network: Exported, model: ir.Model, **options: object) -> str:
    """Return the tensor in which, says the error, module and model differ first."""
    with pytest.raises(VerificationError) as caught:
        prove_parity(network.module, model, size=network.size, **options)
    found = re.search(r"The first tensor that differs is '(.*)': max relative difference \S+\.", str(caught.value))
    assert found, caught.value
    return found[1]


def test_an_honest_export_passes(network: Exported) -> None:
    parity = prove_parity(network.module, copy_of(network), size=32, batches=(1, 7))
    assert parity.batches == (1, 7)
    assert parity.tolerance == DEFAULT_TOLERANCE == 1e-5
    assert 0 < parity.difference < 2e-6


def test_too_tight_a_tolerance_is_not_met(network: Exported) -> None:
    with pytest.raises(
        VerificationError, match=r"at batch 1, output .logits., max relative difference .* \(limit 1\.0e-09\)"
    ):
        prove_parity(network.module, copy_of(network), size=32, tolerance=1e-9)


@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv2", "layer2.0.conv1", "layer3.0.conv1", "layer3.0.conv2"])
def test_a_wrong_weight_is_traced_to_its_layer(network: Exported, layer: str) -> None:
    model = copy_of(network)
    name = f"{layer}.weight"
    set_weight(model, name, weight_of(model, name) * 1.001)
    # the convolution computes what was the batch normalization's result
    assert blamed(network, model) == layer.replace("conv", "bn")


def test_a_wrong_weight_of_the_last_layer_shows_in_the_logits(network: Exported) -> None:
    model = copy_of(network)
    weight = weight_of(model, "fc.weight")
    weight[3, 5] *= 1.01
    set_weight(model, "fc.weight", weight)
    assert blamed(network, model) == "logits"


def test_a_cut_edge_shows_in_the_first_layer_behind_it(network: Exported) -> None:
    model = copy_of(network)
    add = model.graph.node("layer2.0.add")
    add.replace_input_with(1, add.inputs[0])  # twice the branch, no shortcut
    assert blamed(network, model) == "layer2.0.relu_1"


def test_swapped_layers_are_found(network: Exported) -> None:
    model = copy_of(network)
    first, second = "layer1.0.conv1.weight", "layer1.0.conv2.weight"
    weights = weight_of(model, first), weight_of(model, second)
    set_weight(model, first, weights[1])
    set_weight(model, second, weights[0])
    assert blamed(network, model) == "layer1.0.bn1"


def test_two_swapped_values_are_found(network: Exported) -> None:
    model = copy_of(network)
    weight = weight_of(model, "layer1.0.conv1.weight")
    weight[0, [0, 1]] = weight[0, [1, 0]]
    set_weight(model, "layer1.0.conv1.weight", weight)
    assert blamed(network, model) == "layer1.0.bn1"


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 21])
def test_layers_are_found_in_every_opset(opset: int, exported: Callable[..., Exported]) -> None:
    network = exported("small", 32, opset=opset, fused=False)
    model = copy_of(network)
    set_weight(model, "bn2.bias", weight_of(model, "bn2.bias") + 0.01)
    assert blamed(network, model) == "bn2"


def test_a_module_of_several_operators_is_one_layer(exported: Callable[..., Exported]) -> None:
    network = exported("handmade", 16)
    model = copy_of(network)
    set_weight(model, "conv3.weight", weight_of(model, "conv3.weight") * 1.01)
    assert blamed(network, model) == "conv3"
    model = copy_of(network)
    set_weight(model, "logits.bias", weight_of(model, "logits.bias") + 0.01)
    # the first that can be compared: the layer has another name in the file, whose output is called as it is
    assert blamed(network, model) == "act"


def test_a_fault_of_large_batches_is_found(network: Exported) -> None:
    model = copy_of(network)
    # the fifth picture of a batch gets the logits of the first
    logits = model.graph.outputs[0]
    producer = logits.producer()
    assert producer is not None
    logits.name = "honest"
    index = ir.val("four", const_value=ir.tensor(np.array([4], np.int64), name="four"))
    model.graph.register_initializer(index)
    shape = ir.node("Shape", [logits])
    size = ir.node("Gather", [shape.outputs[0], ir.val("zero", const_value=ir.tensor([0], name="zero"))])
    model.graph.register_initializer(size.inputs[1])
    last = ir.node("Min", [index, ir.node("Sub", [size.outputs[0], _one(model)]).outputs[0]])
    minus = last.inputs[1].producer()
    first = ir.node("Gather", [logits, size.inputs[1]])
    updated = ir.node("Where", [ir.node("Equal", [last.outputs[0], index]).outputs[0], first.outputs[0], logits])
    equal = updated.inputs[0].producer()
    updated.outputs[0].name, updated.outputs[0].type = "logits", logits.type
    model.graph.extend([shape, size, minus, last, first, equal, updated])
    model.graph.outputs[0] = updated.outputs[0]
    assert prove_parity(network.module, model, size=32, batches=(1, 2, 4)).difference < 2e-6
    with pytest.raises(VerificationError, match="at batch 5, output 'logits', max relative"):
        prove_parity(network.module, model, size=32)


def _one(model: ir.Model) -> ir.Value:
    one = ir.val("one", const_value=ir.tensor(np.array([1], np.int64), name="one"))
    model.graph.register_initializer(one)
    return one


def test_nan_is_found(network: Exported) -> None:
    model = copy_of(network)
    weight = weight_of(model, "layer2.0.conv1.weight")
    weight[0, 0, 0, 0] = np.nan
    set_weight(model, "layer2.0.conv1.weight", weight)
    with pytest.raises(VerificationError, match=r"difference inf .* first tensor that differs is 'layer2\.0\.bn1'"):
        prove_parity(network.module, model, size=32)


def test_other_shapes_are_found(network: Exported) -> None:
    model = copy_of(network)
    set_weight(model, "fc.weight", weight_of(model, "fc.weight")[:9])
    set_weight(model, "fc.bias", weight_of(model, "fc.bias")[:9])
    model.graph.outputs[0].shape = ir.Shape(["batch", 9])
    assert blamed(network, model) == "logits"


def test_pytorch_s_own_nan_is_the_weights_fault(network: Exported) -> None:
    module = trained_like(build("cifar_resnet8", seed=0))
    with torch.no_grad():
        module.fc.bias[0] = float("inf")
    with pytest.raises(VerificationError, match=r"PyTorch's own logits are not finite at batch 1"):
        prove_parity(module, copy_of(network), size=32)


def test_a_model_without_a_picture_can_t_be_compared(network: Exported) -> None:
    model = copy_of(network)
    model.graph.inputs[0].shape = ir.Shape(["batch", 1, 32, 32])
    with pytest.raises(ModelFileError, match="its pictures have 3 channels, and its input has 1"):
        prove_parity(network.module, model, size=32)


def test_the_module_is_left_without_hooks(network: Exported) -> None:
    model = copy_of(network)
    set_weight(model, "fc.bias", weight_of(model, "fc.bias") + 1)
    blamed(network, model)
    assert not any(child._forward_hooks for child in network.module.modules())
