from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from torch import nn

from rexport import models
from rexport._errors import UsageError
from rexport.models import WeightsFacts, known_facts, network_preprocessing, save_weights
from rexport.models.published_weights import published_facts
from rexport.preprocessing import Interpolation, PictureOptions, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

_OTHER = Preprocessing(size=32, mean=(0, 0, 0), std=(0.1, 0.1, 0.1))


def _saved(path: Path, name: str, facts: WeightsFacts) -> str:
    save_weights(models.build("cifar_resnet8"), path / name, facts)
    return str(path / name)


def test_the_weights_have_the_first_word(tmp_path: Path) -> None:
    network = models.find("cifar_resnet8")
    weights = _saved(tmp_path, "w.safetensors", WeightsFacts(preprocessing=_OTHER, classes=tuple("abcdefghij")))
    assert network_preprocessing(network, weights) == (_OTHER, None)
    assert known_facts(network, weights).classes == tuple("abcdefghij")
    found, note = network_preprocessing(network, weights, PictureOptions(std=(0.2, 0.2, 0.2)))
    assert found.std == (0.2, 0.2, 0.2)
    assert note == f"{weights} states std 0.1,0.1,0.1; taking --std 0.2,0.2,0.2 instead."


@pytest.mark.parametrize("says_nothing", [True, False])
def test_what_nobody_says_is_assumed_but_for_classes(tmp_path: Path, *, says_nothing: bool) -> None:
    network = models.find("cifar_resnet8")
    weights = _saved(tmp_path, "w.safetensors", WeightsFacts()) if says_nothing else None
    found, note = network_preprocessing(network, weights)
    assert (found, found.assumed) == (Preprocessing(size=32), True)
    assert note is not None
    assert note.startswith(f"{weights or 'cifar_resnet8'} does not say how pictures become its input; taking pictures")
    assert known_facts(network, weights).classes == ()  # ten outputs are not CIFAR-10's
    assert known_facts(models.find("resnet50"), weights).classes == ()


def test_mean_and_std_are_all_that_a_network_of_known_size_lacks() -> None:
    options = PictureOptions(mean=_OTHER.mean, std=_OTHER.std)
    found, note = network_preprocessing(models.find("cifar_resnet8"), None, options)
    assert (found, found.assumed, note) == (_OTHER, False, None)
    _, note = network_preprocessing(models.find("torch.nn:Identity"), None, options)
    assert note is not None
    assert "taking the middle 224×224" in note


def test_mean_and_std_of_other_channels_are_assumed() -> None:
    network, grey = replace(models.find("cifar_resnet8"), preprocessing=_OTHER), nn.Conv2d(1, 4, 3)
    found, note = network_preprocessing(network, None, module=grey)
    assert (found, found.assumed) == (Preprocessing(size=32, mean=(0,), std=(1,)), True)
    assert note is not None
    assert "cifar_resnet8 does not say" in note
    assert "taking grey pictures of 32×32 as they are, mean 0 and std 1" in note
    found, note = network_preprocessing(network, None, PictureOptions(mean=(0.5,), std=(0.25,)), module=grey)
    assert (found.mean, found.std, found.assumed, note) == ((0.5,), (0.25,), False, None)
    with pytest.raises(UsageError, match="cifar_resnet8 takes pictures of 1 channel"):
        network_preprocessing(network, None, PictureOptions(mean=(0.5, 0.5, 0.5)), module=grey)


def test_an_ensemble_of_different_weights_is_refused(tmp_path: Path) -> None:
    network = models.find("cifar_resnet8+cifar_resnet8")
    one = _saved(tmp_path, "1.safetensors", WeightsFacts(preprocessing=_OTHER))
    two = _saved(tmp_path, "2.safetensors", WeightsFacts(preprocessing=Preprocessing(size=32)))
    assert network_preprocessing(network, f"{one}+{one}") == (_OTHER, None)
    with pytest.raises(UsageError, match="can't be averaged"):
        network_preprocessing(network, f"{one}+{two}")


def test_published_weights_bring_their_own(torchvision: Any) -> None:
    network = models.find("resnet50")
    for name, resize in (("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)):
        weights = f"torchvision:ResNet50_Weights.{name}"
        assert network_preprocessing(network, weights) == (Preprocessing(size=224, resize=resize), None)
        assert known_facts(network, weights).classes == models.imagenet_classes()


def test_torchvisions_files_are_known_by_their_hash(
    torchvision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real files are large; this one has the name that its own hash gives it."""
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    file, renamed = tmp_path / f"resnet50-{digest}.pth", tmp_path / "resnet50-11ad3fa6.pth"
    for path in (file, renamed):
        path.write_bytes(b"weights")
    assert published_facts(renamed) is None  # a name of torchvision's, and other bytes
    assert published_facts(file) is None
    monkeypatch.setattr(type(weights), "url", f"https://download.pytorch.org/models/{file.name}", raising=False)
    facts = published_facts(file)
    assert facts is not None
    assert facts.classes == models.imagenet_classes()


def test_timms_repositories_bring_their_own(torchvision: Any) -> None:
    pytest.importorskip("timm")
    network = models.find("timm:resnet50")
    own, note = network_preprocessing(network, None)
    assert (own, note) == (Preprocessing(size=224, resize=235, interpolation=Interpolation.BICUBIC), None)
    assert network_preprocessing(network, "hub:timm/resnet50.tv_in1k") == (Preprocessing(size=224, resize=256), None)
    assert known_facts(network, "hub:timm/resnet50.tv_in1k").classes == models.imagenet_classes()
    assert published_facts("hub:timm/nothing.at_all") is None
    assert published_facts("hub:someone/resnet50") is None


def test_what_can_not_be_said_is_refused_unless_stated(torchvision: Any) -> None:
    pytest.importorskip("timm")
    network = models.find("timm:coat_lite_medium_384")
    with pytest.raises(UsageError, match="by the crop mode squash, which rexport's preprocessing can't say"):
        network_preprocessing(network, None)
    options = PictureOptions(resize=384, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    found, note = network_preprocessing(network, None, options)
    assert (found.size, found.resize, found.mean, note) == (384, 384, (0.5, 0.5, 0.5), None)
