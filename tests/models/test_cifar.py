from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

from rexport import models
from rexport._errors import UsageError
from rexport.models.cifar import PadShortcut

if TYPE_CHECKING:
    from pathlib import Path

# the paper's table 6 has 0.27M, 0.46M, 0.66M, 0.85M, 1.7M and 19.4M
PARAMETERS = {
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
}


@pytest.mark.parametrize(("depth", "parameters"), PARAMETERS.items())
def test_parameter_counts_are_the_papers(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        network = models.CifarResNet(depth)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 18, 21, 34])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(UsageError, match=rf"depth of 6n \+ 2 .*, and not {depth}\."):
        models.CifarResNet(depth)


def test_state_dict_is_named_as_torchvisions_and_shortcuts_have_no_weights() -> None:
    names = [name for name, _ in models.CifarResNet(8).named_parameters()]
    block = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
    stages = [f"layer{stage}.0.{name}" for stage in (1, 2, 3) for name in block]
    assert names == ["conv1.weight", "bn1.weight", "bn1.bias", *stages, "fc.weight", "fc.bias"]


@given(channels=st.integers(1, 8), added=st.integers(1, 4), half=st.integers(1, 5))
def test_the_shortcut_subsamples_and_pads_both_sides(channels: int, added: int, half: int) -> None:
    x = torch.randn(2, channels, 2 * half, 2 * half)
    y = PadShortcut(channels, channels + 2 * added)(x)
    assert torch.equal(y[:, added : added + channels], x[:, :, ::2, ::2])
    assert y[:, :added].count_nonzero() == y[:, added + channels :].count_nonzero() == 0
    assert y.shape == (2, channels + 2 * added, half, half)


@pytest.mark.parametrize(("depth", "right"), [(20, 776), (44, 793)])
def test_the_public_weights_get_their_images_right(depth: int, right: int, data_dir: Path) -> None:
    images, labels = _images(data_dir / "cifar10" / "test")
    assert len(images) == 846
    network = models.build(f"cifar_resnet{depth}", weights=data_dir / "weights" / f"cifar_resnet{depth}.th")
    # one image: the order of additions differs between machines, and one image may lie that near a boundary
    assert _right(network, images, labels) == pytest.approx(right, abs=1)


def test_zeros_on_one_side_of_the_shortcut_cost_images(data_dir: Path) -> None:
    images, labels = _images(data_dir / "cifar10" / "test")
    network = models.build("cifar_resnet20", weights=data_dir / "weights" / "cifar_resnet20.th")
    for stage in (network.layer2, network.layer3):
        stage[0].downsample = _PadBehind()
    assert _right(network, images, labels) < 700


class _PadBehind(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


def _images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    classes = sorted(path.name for path in folder.iterdir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    return (x - mean) / std, torch.tensor([label for _, label in files])


@torch.inference_mode()
def _right(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    predicted = torch.cat([network(batch).argmax(1) for batch in images.split(128)])
    return int((predicted == labels).sum())
