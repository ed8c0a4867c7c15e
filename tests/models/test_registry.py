from __future__ import annotations

import pytest
import torch

from rexport import models
from rexport._errors import UsageError

NAMES = [
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"plain{depth}" for depth in (18, 34)),
    *(f"preact_resnet{depth}" for depth in (18, 34, 50, 101, 152, 200)),
    *("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnet50d", "vgg19"),
    *(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    *(f"cifar_plain{depth}" for depth in (20, 32, 44, 56)),
    *(f"cifar_preact_resnet{depth}" for depth in (20, 110, 164, 1001)),
    *("cifar_resnext29_8x64d", "cifar_resnext29_16x64d"),
]


def test_all_networks_are_there() -> None:
    assert [network.name for network in models.networks()] == NAMES


def test_cifar_networks_of_any_depth_are_found() -> None:
    assert models.find("cifar_resnet8").depth == 8
    assert models.build("cifar_resnet8")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert models.find("cifar_plain26").depth == 26
    assert models.find("cifar_preact_resnet38").depth == 38  # 6n + 2: basic blocks
    assert models.find("cifar_preact_resnet29").depth == 29  # 9n + 2: bottlenecks


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cifar_resnet21", [20, 26]),
        ("cifar_resnet2", [8, 14]),
        ("cifar_resnet25", [20, 26]),
    ],
)
def test_a_wrong_cifar_depth_names_the_rule_and_the_neighbours(name: str, near: list[int]) -> None:
    with pytest.raises(
        UsageError, match=rf"no network {name}\. .* must be 6n \+ 2, .* the nearest are {near[0]} and {near[1]}\."
    ):
        models.find(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet51", "resnet50"),
        ("ResNet50", "resnet50"),
        ("resnext50", "resnext50_32x4d"),
        ("plain50", "plain18"),
        ("cifar-resnet20", "cifar_resnet20"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"no network '{name}'\. Did you mean .*\b{near}\b.*rexport models"):
        models.find(name)


def test_a_name_that_is_near_to_none_gets_no_guess() -> None:
    with pytest.raises(UsageError, match=r"no network '文'\. `rexport models` lists them all\."):
        models.find("文")


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first = models.build("cifar_resnet8", seed=3)
    torch.manual_seed(2)
    second, other = models.build("cifar_resnet8", seed=3), models.build("cifar_resnet8", seed=4)
    assert models.state_dict_hash(first) == models.state_dict_hash(second)
    assert models.state_dict_hash(first) != models.state_dict_hash(other)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    models.build("cifar_resnet8")
    assert torch.equal(before, torch.get_rng_state())


def test_networks_are_built_for_inference_on_the_cpu_whatever_the_default_device() -> None:
    with torch.device("meta"):
        network = models.build("cifar_resnet8")
    assert not any(module.training for module in network.modules())
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("num_classes", [1, 7])
def test_the_number_of_classes_can_be_chosen(num_classes: int) -> None:
    assert models.build("cifar_resnet8", num_classes=num_classes).fc.out_features == num_classes


@pytest.mark.parametrize("num_classes", [0, -1])
def test_no_classes_are_refused(num_classes: int) -> None:
    with pytest.raises(UsageError, match=f"one class or more, and not {num_classes}"):
        models.build("cifar_resnet8", num_classes=num_classes)
