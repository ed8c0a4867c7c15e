from __future__ import annotations

from argparse import Namespace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rexport import models
from rexport.models.trainer_settings import settings_in, validation_preprocessing
from rexport.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path


def _saved(folder: Path, **settings: object) -> Path:
    weights = models.build("cifar_resnet8").state_dict()
    torch.save({"state_dict": weights, "args": Namespace(**settings)}, folder / "w.pth")
    return folder / "w.pth"


def test_settings_are_a_namespace_or_a_mapping() -> None:
    assert settings_in({"args": Namespace(model="resnet18"), "epoch": 3}) == {"model": "resnet18"}
    assert settings_in({"hyper_parameters": {"arch": "resnet18"}}) == {"arch": "resnet18"}
    assert settings_in({"args": "--model resnet18"}) == {}


def test_torchvisions_references_say_how_they_validated(tmp_path: Path) -> None:
    path = _saved(tmp_path, val_crop_size=160, val_resize_size=176, interpolation="bicubic")
    expected = Preprocessing(
        size=160, resize=176, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation=Interpolation.BICUBIC
    )
    network = models.find("resnet18")
    assert validation_preprocessing(path, network) == expected
    assert models.known_facts(network, path).preprocessing == expected


@pytest.mark.parametrize(
    "changed",
    [{"interpolation": "nearest"}, {"val_crop_size": 192}, {"val_crop_size": None}, {"val_crop_size": "x"}],
)
def test_what_is_no_preprocessing_here_states_nothing(changed: dict[str, object], tmp_path: Path) -> None:
    settings = {"val_crop_size": 160, "val_resize_size": 176, "interpolation": "bilinear"} | changed
    assert validation_preprocessing(_saved(tmp_path, **settings), models.find("resnet18")) is None


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    ("changed", "size", "resize"),
    [
        ({}, 224, 235),  # of timm's a1_in1k: 224 / 0.95
        ({"img_size": 192}, 192, 202),
        ({"img_size": 192, "crop_pct": 0.8}, 192, 240),
        ({"input_size": [3, 128, 128], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.25]}, 128, 134),
        ({"crop_mode": "squash"}, None, None),
    ],
)
def test_timms_trainer_changes_the_networks_preprocessing(
    changed: dict[str, Any], size: int | None, resize: int | None, torchvision: Any, tmp_path: Path
) -> None:
    unset = dict.fromkeys(("img_size", "input_size", "crop_pct", "mean", "std", "interpolation"))
    path = _saved(tmp_path, **(unset | changed))
    preprocessing = validation_preprocessing(path, models.find("timm:resnet50"))
    if size is None:
        assert preprocessing is None
    else:
        assert preprocessing == Preprocessing(
            size=size,
            resize=resize,
            mean=tuple(changed.get("mean", IMAGENET_MEAN)),
            std=tuple(changed.get("std", IMAGENET_STD)),
            interpolation=Interpolation.BICUBIC,
        )
    assert validation_preprocessing(path, models.find("resnet50")) is None  # of another library
