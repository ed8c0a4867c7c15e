"""``load_backbone``: all of a checkpoint but a head of other classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rexport import build
from rexport._errors import WeightsError
from rexport.models.weights import last_linear, load_backbone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file(build("cifar_resnet8", seed=1).state_dict(), path)
    return path


def test_a_last_linear_other_classes_stays_as_drawn(trained: Path) -> None:
    module, drawn = (build("cifar_resnet8", num_classes=3, seed=2) for _ in range(2))
    assert not load_backbone(module, trained)
    expected = build("cifar_resnet8", weights=trained).state_dict()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, (drawn.state_dict() if name.startswith("fc.") else expected)[name]), name


def test_a_last_linear_as_many_classes_is_filled_too(trained: Path) -> None:
    module = build("cifar_resnet8", seed=2)
    assert load_backbone(module, trained)
    assert torch.equal(module.fc.weight, build("cifar_resnet8", seed=1).fc.weight)


@pytest.mark.parametrize("classes", [3, 10])
def test_all_else_must_fit(trained: Path, classes: int) -> None:
    module = build("cifar_resnet14", num_classes=classes)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError, match="does not fit the network"):
        load_backbone(module, trained)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_last_linear_another_width_does_not_fit(tmp_path: Path) -> None:
    state = build("cifar_resnet8").state_dict() | {"fc.weight": torch.zeros(10, 32)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"fc\.weight"):
        load_backbone(build("cifar_resnet8", num_classes=3), tmp_path / "w.safetensors")


def test_a_network_without_a_head(trained: Path) -> None:
    assert last_linear(build("resnet18")) == "fc"
    with pytest.raises(WeightsError, match="no linear layer"):
        last_linear(nn.Sequential(nn.Conv2d(3, 4, 3)))
