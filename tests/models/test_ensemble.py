from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from rexport import models
from rexport._errors import UsageError, WeightsError
from tests.models._images import read_images, right

if TYPE_CHECKING:
    from pathlib import Path


@torch.inference_mode()
def test_the_average_of_the_softmax_scores() -> None:
    network = models.build("cifar_resnet8+cifar_plain8+cifar_resnet14", num_classes=5)
    x = torch.randn(3, 3, 32, 32)
    expected = torch.stack([member(x).softmax(1) for member in network.members]).mean(0)
    assert torch.allclose(network(x), expected, atol=1e-7)
    assert torch.allclose(network(x).sum(1), torch.ones(3))


def test_the_members_are_networks_of_their_own() -> None:
    network = models.find("resnet18 + resnet34+resnet50")
    assert network.name == "resnet18+resnet34+resnet50"
    assert [member.name for member in network.members] == ["resnet18", "resnet34", "resnet50"]
    assert (network.depth, network.input_size, network.num_classes, network.dataset) == (50, 224, 1000, "imagenet")
    assert network.summary().macs == sum(member.summary().macs for member in network.members)


@pytest.mark.slow
def test_two_trained_networks_are_better_than_either(data_dir: Path) -> None:
    weights = data_dir / "weights"
    files = f"{weights / 'cifar_resnet20.th'}+{weights / 'cifar_resnet44.th'}"
    network = models.build("cifar_resnet20+cifar_resnet44", weights=files)
    images, labels = read_images(data_dir / "cifar10" / "test")
    assert right(network, images, labels) == pytest.approx(795, abs=1)  # alone: 776 and 793


def test_one_file_of_the_whole_ensemble(tmp_path: Path) -> None:
    name = "cifar_resnet8+cifar_resnet8"
    state = models.build(name, seed=7).state_dict()
    save_file(state, tmp_path / "a+b.safetensors")
    loaded = models.build(name, weights=tmp_path / "a+b.safetensors")
    assert models.state_dict_hash(loaded) == models.state_dict_hash(models.build(name, seed=7))


def test_a_file_for_each_member(tmp_path: Path) -> None:
    save_file(models.build("cifar_resnet8").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"has 2 networks, and --weights names 3 files"):
        models.build("cifar_resnet8+cifar_resnet14", weights="a+b+c")
    file = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match="does not fit"):
        models.build("cifar_resnet8+cifar_resnet14", weights=f"{file}+{file}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet18+cifar_resnet20", "can't be averaged: their input size is 224 and 32"),
        ("cifar_resnet20+resnet[depth=20,stages=3,num_classes=7]", "their num classes is 10 and 7"),
        ("resnet18+", "lacks one of them"),
        ("resnet18+resnet19", "no network 'resnet19'"),
    ],
)
def test_what_can_not_be_averaged(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        models.find(name)
