from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from rexport import models
from rexport.models.resnet import he_init
from tests._deep import deep

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "vgg19": 143_667_240,
}
KINDS = ["resnet18", "resnet50", "resnext50_32x4d", pytest.param("vgg19", marks=pytest.mark.slow)]
LARGE = ["resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"]


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameter_counts_are_torchvisions_documented_ones(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in _unfilled(name).parameters()) == parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_state_dict_is_named_and_shaped_as_torchvisions(name: str, torchvision: Any) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    assert _shapes(_unfilled(name)) == _shapes(theirs)


@pytest.mark.parametrize("name", [*KINDS, *deep("resnet34", *LARGE)])
def test_outputs_are_bit_for_bit_torchvisions(name: str, torchvision: Any) -> None:
    ours, theirs = _same_weights(name, torchvision)
    logits = _run(ours)
    assert logits.shape == (2, 1000)
    assert logits.isfinite().all()
    assert logits.std() > 0
    assert torch.equal(logits, _run(theirs))


@pytest.mark.slow
def test_gradients_and_running_statistics_are_torchvisions_too(torchvision: Any) -> None:
    results = []
    for index in range(2):
        module = _same_weights("resnet18", torchvision)[index].train()
        _images_through(module).square().mean().backward()
        results.append((module.conv1.weight.grad, module.layer4[1].bn2.running_var))
    (our_gradient, our_variance), (their_gradient, their_variance) = results
    assert our_gradient.abs().max() > 0
    assert torch.equal(our_gradient, their_gradient)
    assert torch.equal(our_variance, their_variance)


@pytest.mark.parametrize("name", ["resnet18", *deep("resnet34", "resnet50", "resnext50_32x4d")])
def test_the_comparison_sees_one_wrong_weight(name: str, torchvision: Any) -> None:
    ours, theirs = _same_weights(name, torchvision)
    wrong = ours.conv1.weight.detach().clone()
    wrong[0, 0, 3, 3] += 0.001
    ours.conv1.weight = nn.Parameter(wrong)
    assert not torch.equal(_run(ours), _run(theirs))


def test_the_comparison_sees_the_papers_stride_placement(torchvision: Any) -> None:
    ours, theirs = _same_weights("resnet50", torchvision)
    ours.layer2[0].conv1.stride, ours.layer2[0].conv2.stride = (2, 2), (1, 1)
    assert not torch.equal(_run(ours), _run(theirs))


@pytest.mark.slow
def test_resnet_d_is_timms(torchvision: Any) -> None:  # timm imports torchvision, and can't where that can't be
    timm = pytest.importorskip("timm")
    ours, theirs = models.build("resnet50d"), timm.create_model("resnet50d").eval()
    assert _shapes(ours) == _shapes(theirs)
    _fill(ours, theirs)
    assert torch.equal(_run(ours), _run(theirs))


def test_timms_weights_fit_by_their_names(torchvision: Any) -> None:
    timm = pytest.importorskip("timm")
    for name in ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"):
        with torch.device("meta"):
            assert _shapes(_unfilled(name)) == _shapes(timm.create_model(name))


def test_the_papers_stride_is_in_the_first_convolution() -> None:
    block = models.resnet(depth=50, stride="1x1").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize("family", ["resnet", "preact_resnet"])
@pytest.mark.parametrize("depth", [20, 29])
def test_zero_init_makes_every_block_without_projection_the_identity(family: str, depth: int) -> None:
    block = "basic" if depth == 20 else "bottleneck"
    network = models.build(f"{family}[depth={depth},stages=3,block={block},zero_init=true]")
    second = network.layer1[1]
    x = torch.rand(2, second.conv1.in_channels, 8, 8)  # positive, as what comes out of a ReLU
    assert torch.equal(second(x), x)
    usual = models.build(f"{family}[depth={depth},stages=3,block={block}]").layer1[1]
    assert not torch.equal(usual(x), x)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("cifar_resnet1202", marks=pytest.mark.slow), "cifar_preact_resnet1001"])
def test_a_thousand_untrained_layers_stay_finite(name: str) -> None:
    network = models.build(name)
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 8, 8)).isfinite().all()


def test_convolutions_are_drawn_with_the_variance_of_he() -> None:
    convolution = nn.Conv2d(64, 128, 3)
    he_init(convolution)
    # 73,728 draws: the standard error of the deviation is 0.26 %
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.01)


def _unfilled(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.find(name).construct(1000)


def _same_weights(name: str, torchvision: Any) -> tuple[Any, Any]:
    """Our network and torchvision's, in evaluation mode, holding the same tensors."""
    ours = _unfilled(name)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    _fill(ours, theirs)
    return ours.eval(), theirs.eval()


def _fill(*modules: nn.Module) -> None:
    """Draw tensors, and give the same to each of these modules."""
    generator = torch.Generator().manual_seed(0)
    state = {key: _draw(key, tensor, generator) for key, tensor in modules[-1].state_dict().items()}
    for module in modules:
        module.load_state_dict(state, assign=True)


def _draw(key: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.ndim > 1:
        # half of He's variance: the sum over the blocks stays small, and no weight's share is rounded off
        return torch.randn(tensor.shape, generator=generator).mul_(tensor[0].numel() ** -0.5)
    if key.endswith(("running_var", "weight")):
        return torch.rand(tensor.shape, generator=generator).add_(0.5)
    return torch.randn(tensor.shape, generator=generator).mul_(0.1)


def _images_through(module: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    result: torch.Tensor = module(images)
    return result


def _run(module: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return _images_through(module)


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in module.state_dict().items()]
