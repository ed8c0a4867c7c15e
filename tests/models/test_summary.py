from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from rexport import models
from rexport.models import Stage
from tests._deep import deep

# to the million, as torchvision documents its weights' "GFLOPS" (a multiply-accumulate being one)
MEGA_MACS = {
    "resnet18": 1_814,
    "resnet34": 3_664,
    "resnet50": 4_089,
    "resnet101": 7_801,
    "resnet152": 11_514,
    "resnext50_32x4d": 4_230,
    "resnext101_32x8d": 16_414,
    "resnext101_64x4d": 15_460,
}
_UP_TO_200_LAYERS = [network.name for network in models.networks() if (network.depth or 0) <= 200]


@pytest.mark.parametrize(("name", "mega_macs"), MEGA_MACS.items())
def test_macs_are_those_torchvision_documents(name: str, mega_macs: int) -> None:
    assert round(models.find(name).summary().macs / 1e6) == mega_macs


def test_resnet20_adds_up_by_hand() -> None:
    summary = models.find("cifar_resnet20").summary()
    half = 16 * 16 * 32 * 9
    assert summary.stages == (
        Stage(name="conv1", output_shape=(16, 32, 32), blocks=0, parameters=432 + 32, macs=32 * 32 * 16 * 27),
        Stage(
            name="layer1",
            output_shape=(16, 32, 32),
            blocks=3,
            parameters=6 * (2304 + 32),
            macs=6 * 32 * 32 * 16 * 144,
        ),
        Stage(
            name="layer2",
            output_shape=(32, 16, 16),
            blocks=3,
            parameters=4608 + 5 * 9216 + 6 * 64,
            macs=half * 16 + 5 * half * 32,
        ),
        Stage(
            name="layer3",
            output_shape=(64, 8, 8),
            blocks=3,
            parameters=18432 + 5 * 36864 + 6 * 128,
            macs=half * 16 + 5 * half * 32,
        ),
        Stage(name="fc", output_shape=(10,), blocks=0, parameters=650, macs=640),
    )
    assert summary.macs == 40_551_040
    assert summary.parameters == 269_722


@pytest.mark.parametrize("name", [*_UP_TO_200_LAYERS, *deep("cifar_preact_resnet1001", "cifar_resnet1202")])
def test_stages_add_up(name: str) -> None:
    summary = models.find(name).summary()
    assert sum(stage.parameters for stage in summary.stages) == summary.parameters
    assert sum(stage.macs for stage in summary.stages) == summary.macs


@pytest.mark.parametrize("training", [False, True])
def test_shapes_are_those_of_a_real_run_and_the_module_is_left_alone(training: bool) -> None:
    module = _Odd().train(training)
    module.norm.eval()
    real: dict[str, tuple[int, ...]] = {}
    hooks = [
        child.register_forward_hook(lambda _, __, y, name=name: real.update({name: tuple(y.shape[1:])}))
        for name, child in module.named_children()
    ]
    with torch.no_grad():
        module(torch.randn(2, 3, 37, 37))
    for hook in hooks:
        hook.remove()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    summary = models.summarize(module, 37)
    assert {stage.name: stage.output_shape for stage in summary.stages} == {
        name: real[name] for name in ("grouped", "asymmetric", "same", "twice", "head")
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert [m.training for m in module.modules()] == [m is not module.norm and training for m in module.modules()]
    assert not any(m._forward_hooks for m in module.modules())


def test_macs_count_groups_kernels_and_every_call() -> None:
    macs = {stage.name: stage.macs for stage in models.summarize(_Odd(), 37).stages}
    assert macs == {
        "grouped": 6 * 19 * 19 * (1 * 9),
        "asymmetric": 4 * 17 * 11 * (6 * 15),
        "same": 4 * 17 * 11 * (4 * 3),
        "twice": 2 * 4 * 17 * 11 * (4 * 1),
        "head": 5 * 4,
    }


def test_a_torchvision_network_costs_the_same(torchvision: Any) -> None:
    with torch.device("meta"):
        assert models.summarize(torchvision.models.resnet18(), 224) == models.find("resnet18").summary()


@pytest.mark.slow
def test_counting_is_quick() -> None:
    network = models.find("resnet152")
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        network.summary()
        seconds.append(time.thread_time() - start)
    # some 0.2 s of this thread; running the network on the meta device, or on a real image, takes longer than this
    assert min(seconds) < 0.8


class _Odd(nn.Module):
    """Strides, paddings, dilations, groups and reuse that the residual networks do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3)
        self.norm = nn.BatchNorm2d(6)
        self.asymmetric = nn.Conv2d(6, 4, (3, 5), stride=(1, 2), padding=(1, 3), dilation=(2, 1))
        self.same = nn.Conv2d(4, 4, (1, 3), padding="same")
        self.twice = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.grouped(x)).relu()
        x = self.same(self.asymmetric(x))
        x = self.twice(self.twice(x))
        result: torch.Tensor = self.head(x.mean((2, 3)))
        return result
