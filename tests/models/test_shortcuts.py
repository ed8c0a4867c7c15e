from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rexport import models
from rexport.models.shortcuts import DropoutJoin, GatedJoin, PadShortcut, ScaledJoin
from tests.models._images import read_images, right

if TYPE_CHECKING:
    from pathlib import Path


@given(channels=st.integers(1, 8), added=st.integers(0, 4), half=st.integers(1, 5))
def test_option_a_subsamples_and_pads_both_sides(channels: int, added: int, half: int) -> None:
    x = torch.randn(2, channels, 2 * half, 2 * half)
    y = PadShortcut(channels, channels + 2 * added)(x)
    assert torch.equal(y[:, added : added + channels], x[:, :, ::2, ::2])
    assert y[:, :added].count_nonzero() == y[:, added + channels :].count_nonzero() == 0
    assert y.shape == (2, channels + 2 * added, half, half)


@pytest.mark.slow
def test_zeros_on_one_side_of_the_shortcut_cost_images(data_dir: Path) -> None:
    images, labels = read_images(data_dir / "cifar10" / "test")
    network = models.build("cifar_resnet20", weights=data_dir / "weights" / "cifar_resnet20.th")
    for stage in (network.layer2, network.layer3):
        stage[0].downsample = _PadBehind()
    assert right(network, images, labels) < 700


class _PadBehind(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


@pytest.mark.parametrize(
    ("shortcut", "projections"),
    [("none", 0), ("A", 0), ("B", 3), ("C", 8), ("scaled", 0), ("dropout", 0), ("gated", 0), ("shortcut_gated", 0)],
)
def test_projections_stand_where_the_option_says(shortcut: str, projections: int) -> None:
    network = models.build(f"resnet[depth=18,shortcut={shortcut}]")
    convolutions = [name for name, child in network.named_modules() if isinstance(child, nn.Conv2d)]
    assert len([name for name in convolutions if "downsample" in name]) == projections
    assert len([name for name in convolutions if "gate" in name]) == (8 if "gated" in shortcut else 0)


def test_a_plain_block_hands_nothing_round() -> None:
    block = models.build("cifar_plain8").layer1[0]
    nn.init.zeros_(block.conv2.weight)
    assert block(torch.rand(1, 16, 4, 4)).count_nonzero() == 0


X, SHORTCUT, RESIDUAL = torch.randn(3, 2, 4, 6, 6)


def test_scaled_is_half_of_each() -> None:
    assert torch.allclose(ScaledJoin()(X, SHORTCUT, RESIDUAL), (SHORTCUT + RESIDUAL) / 2)


def test_dropout_drops_half_of_the_shortcut_in_training_only() -> None:
    join = DropoutJoin()
    kept = (join(X, torch.ones(64, 64), torch.zeros(64, 64)) != 0).float().mean()
    assert 0.4 < kept < 0.6
    assert torch.equal(join.eval()(X, SHORTCUT, RESIDUAL), SHORTCUT + RESIDUAL)


@pytest.mark.parametrize("exclusive", [True, False])
def test_gates_open_and_close(exclusive: bool) -> None:
    join = GatedJoin(4, 4, stride=1, exclusive=exclusive)
    assert join.gate.bias is not None
    assert set(join.gate.bias.tolist()) == {-6.0}  # so that the shortcut is open to begin with
    nn.init.zeros_(join.gate.weight)
    nn.init.constant_(join.gate.bias, 100.0)  # shut
    assert torch.allclose(join(X, SHORTCUT, RESIDUAL), RESIDUAL)
    nn.init.constant_(join.gate.bias, -100.0)  # open
    assert torch.allclose(join(X, SHORTCUT, RESIDUAL), SHORTCUT + (0 if exclusive else RESIDUAL), atol=1e-6)


def test_gates_follow_the_stride() -> None:
    network = models.build("resnet[depth=8,stages=3,shortcut=gated]")
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert network.layer2[0].join.gate.stride == (2, 2)
