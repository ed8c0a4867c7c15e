"""Backbones with named outputs; the proof must find a fault in any of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from rexport._errors import UsageError, VerificationError
from rexport.exporting import export, prove_parity
from rexport.model_file import Head, Metadata, to_bytes
from rexport.models import build
from rexport.passes import fuse
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._networks import trained_like
from tests.exporting._networks import pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.exporting.conftest import Exported

FEATURES = ("layer3", "layer1.0.bn2", "layer2")  # not in the order they are computed


@pytest.fixture
def backbone(exported: Callable[..., Exported]) -> Exported:
    return exported("cifar_resnet8", 32, features=FEATURES)


def in_pytorch(module: nn.Module, images: np.ndarray, features: Sequence[str]) -> list[np.ndarray]:
    """Compute features without the code under test: copied by hooks, each in a pass of its own."""
    found = []
    for name in features:
        results: list[np.ndarray] = []
        child = module.get_submodule(name)
        hook = child.register_forward_hook(lambda _m, _i, out, results=results: results.append(out.numpy().copy()))
        with torch.inference_mode():
            module(torch.from_numpy(images))
        hook.remove()
        found += results
    return found


def assert_close(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()  # see exporting/parity.py


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_outputs_are_the_modules_results_in_the_order_asked_for(batch: int, backbone: Exported) -> None:
    model = backbone.result.model
    assert [value.name for value in model.graph.outputs] == list(FEATURES)
    assert [str(value.shape) for value in model.graph.outputs] == [
        "[batch,64,8,8]",
        "[batch,16,32,32]",
        "[batch,32,16,16]",
    ]
    images = pictures(batch)
    results = open_session(to_bytes(model)).run(None, {"images": images})
    assert_close(results, in_pytorch(backbone.module, images, FEATURES))


@pytest.mark.slow
def test_what_in_place_operations_overwrite_is_kept() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.conv(x)).relu_()
            y = self.second(x)
            y += x
            return y.mul_(2).flatten(1)

    features = ("norm", "second")
    module = trained_like(InPlace())
    images = pictures(2, 8, 8)
    expected = in_pytorch(module, images, features)
    assert (expected[0] < 0).any()
    for fused in (True, False):
        result = export(module, preprocessing=Preprocessing(size=8), features=features, fused=fused)
        assert_close(open_session(to_bytes(result.model)).run(None, {"images": images}), expected)


@pytest.mark.slow
def test_what_no_feature_needs_is_not_in_the_file(exported: Callable[..., Exported]) -> None:
    model = exported("cifar_resnet8", 32, features=("layer1", "layer2")).result.model
    assert not [name for name in model.graph.initializers if name.startswith(("layer3", "fc"))]
    assert not [node.name for node in model.graph if node.name.startswith(("layer3", "avgpool", "fc"))]
    assert len(to_bytes(model)) < 0.4 * len(to_bytes(exported("cifar_resnet8", 32).result.model))


def test_nodes_keep_the_names_of_their_modules(exported: Callable[..., Exported]) -> None:
    whole, part = (exported("cifar_resnet8", 32, **options).result.model for options in ({}, {"features": FEATURES}))
    names = {node.name for node in part.graph}
    assert names <= {node.name for node in whole.graph}
    assert {"conv1", "layer2.0.relu_1", "layer3.0.add"} <= names
    assert "Identity" not in {node.op_type for node in part.graph}  # the copies


@pytest.mark.slow
def test_without_fusion_there_are_no_copies_either(exported: Callable[..., Exported]) -> None:
    model = exported("small", 32, features=("bn2", "bn1"), fused=False).result.model
    assert "Identity" not in {node.op_type for node in model.graph}
    assert [value.name for value in fuse(model).model.graph.outputs] == ["bn2", "bn1"]


@pytest.mark.slow
def test_two_names_of_one_tensor_are_two_outputs(exported: Callable[..., Exported]) -> None:
    network = exported("cifar_resnet8", 32, features=("layer2", "layer2.0", "fc"))
    whole, last, logits = open_session(to_bytes(network.result.model)).run(None, {"images": pictures(2)})
    np.testing.assert_array_equal(whole, last)
    assert logits.shape == (2, 10)


@pytest.mark.slow
def test_a_tensor_that_is_an_output_is_not_fused_away(exported: Callable[..., Exported]) -> None:
    result = exported("small", 32, features=("conv1", "bn2")).result
    refusals = [refusal.why for report in result.reports for refusal in report.refusals]
    assert refusals == ["its convolution's result 'conv1' is an output of the model"]


@pytest.mark.slow
def test_the_file_says_what_it_gives(backbone: Exported) -> None:
    metadata = Metadata.of(backbone.result.model)
    assert metadata.features == FEATURES
    assert metadata.classes == ()


@pytest.mark.slow
def test_the_proof_is_of_every_output(backbone: Exported) -> None:
    parity = backbone.result.parity
    assert list(parity.outputs) == list(FEATURES)
    assert parity.difference == max(parity.outputs.values()) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "output", "first"),
    [
        ("conv1", "layer3", "bn1"),
        ("layer1.0.conv2", "layer3", "layer1.0.bn2"),
        ("layer2.0.conv1", "layer3", "layer2.0.bn1"),
        ("layer3.0.conv2", "layer3", "layer3.0.bn2"),
    ],
)
def test_a_wrong_weight_is_traced_to_its_layer(weight: str, output: str, first: str, backbone: Exported) -> None:
    model = backbone.result.model.clone()
    value = model.graph.initializers[f"{weight}.weight"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.001), name=value.name)
    with pytest.raises(VerificationError) as caught:
        prove_parity(backbone.module, model, size=32, features=FEATURES)
    assert f"output {output!r}, max relative" in str(caught.value)
    assert re.search(rf"first tensor that differs is '{re.escape(first)}'", str(caught.value))


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_a_fault_in_one_output_only_is_found(index: int, backbone: Exported) -> None:
    model = backbone.result.model.clone()
    honest = model.graph.outputs[index]
    name, honest.name = honest.name, "honest"
    factor = ir.val("factor", const_value=ir.tensor(np.float32(1.0001), name="factor"))
    model.graph.register_initializer(factor)
    scaled = ir.node("Mul", [honest, factor])
    scaled.outputs[0].name, scaled.outputs[0].type = name, honest.type
    model.graph.append(scaled)
    model.graph.outputs[index] = scaled.outputs[0]
    with pytest.raises(VerificationError, match=rf"at batch 1, output '{name}', max .* tensor .* is '{name}'"):
        prove_parity(backbone.module, model, size=32, features=FEATURES)


@pytest.mark.slow
def test_swapped_outputs_are_found(exported: Callable[..., Exported]) -> None:
    features = ("conv1", "bn1")  # of one shape
    network = exported("small", 32, features=features)
    model = network.result.model.clone()
    first, second = model.graph.outputs
    first.name, second.name = second.name, "between"
    second.name = features[0]
    with pytest.raises(VerificationError, match="differs from the PyTorch module"):
        prove_parity(network.module, model, size=32, features=features)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("layer9",), r"no module 'layer9'\. Did you mean layer3 .* At its top are conv1, bn1, .*layer1, layer2"),
        (("layer1", "layer2.0.conv9"), r"no module 'layer2\.0\.conv9'\. Did you mean layer2\.0\.conv"),
        (("",), "no module ''"),
        (("layer1", "layer1"), "layer1 is named 2 times"),
        (("layer1.0.relu",), r"layer1\.0\.relu runs 2 times"),
    ],
)
def test_features_that_make_no_sense(features: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(build("cifar_resnet8"), preprocessing=Preprocessing(size=32), features=features)


def test_a_name_inside_is_found_by_its_end() -> None:
    nested = nn.ModuleDict({"members": build("cifar_resnet8")})
    with pytest.raises(UsageError, match=r"Did you mean members\.layer2\?"):
        export(nested, preprocessing=Preprocessing(size=32), features=("layer2",))


def test_modules_without_a_tensor() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.pair, self.sum = nn.Conv2d(3, 3, 1), Pair(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self.pair(x)
            return self.sum(first + second)

    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x * 2

    with pytest.raises(UsageError, match="unused does not run"):
        export(Odd(), preprocessing=Preprocessing(size=8), features=("sum", "unused"))
    with pytest.raises(UsageError, match="pair returns a tuple"):
        export(Odd(), preprocessing=Preprocessing(size=8), features=("pair",))


@pytest.mark.parametrize("options", [{"head": Head.SOFTMAX}, {"classes": ("a", "b")}])
def test_features_are_no_classes(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no classes and no softmax"):
        export(nn.Identity(), preprocessing=Preprocessing(size=8), features=("layer1",), **options)


@pytest.mark.slow
def test_the_module_is_left_without_hooks(backbone: Exported) -> None:
    assert not any(child._forward_hooks for child in backbone.module.modules())
    assert isinstance(backbone.module(torch.zeros(1, 3, 32, 32)), torch.Tensor)
