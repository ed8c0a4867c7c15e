"""Published weights come through the real libraries, here from caches that the tests fill: no test downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rexport import models
from rexport._errors import UsageError, WeightsError
from rexport.models.published_weights import fetch


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert fetch(tmp_path / "a.pth") == tmp_path / "a.pth"
    assert fetch("a.pth") == Path("a.pth")


@pytest.mark.slow
def test_torchvisions_weights_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    state = models.build("resnet18", seed=5).state_dict()
    torch.save(state, tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1])
    network = models.build("resnet18", weights="torchvision:ResNet18_Weights.IMAGENET1K_V1")
    assert models.state_dict_hash(network) == models.state_dict_hash(models.build("resnet18", seed=5))


def test_torchvisions_weights_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*arguments: Any, **options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(WeightsError, match=r"can't be fetched \(no route to host\).*download https://.*--weights FILE"):
        fetch("torchvision:ResNet18_Weights.IMAGENET1K_V1")


@pytest.mark.parametrize("name", ["ResNet18_Weights.IMAGENET1K_V7", "ResNet18.IMAGENET1K_V1", "nothing"])
def test_weights_that_torchvision_does_not_have(name: str, torchvision: Any) -> None:
    with pytest.raises(UsageError, match=f"torchvision has no weights '{name}'"):
        fetch(f"torchvision:{name}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository in it, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--resnet8"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(models.build("cifar_resnet8", seed=5).state_dict(), snapshot / "model.safetensors")
    return tmp_path


def test_the_hubs_weights_from_its_cache(hub: Path) -> None:
    expected = models.state_dict_hash(models.build("cifar_resnet8", seed=5))
    for reference in ("hub:someone/resnet8", "hub:someone/resnet8/model.safetensors"):
        assert models.state_dict_hash(models.build("cifar_resnet8", weights=reference)) == expected


@pytest.mark.usefixtures("hub")
def test_the_hubs_weights_without_a_network() -> None:
    with pytest.raises(WeightsError, match=r"hub:someone/other can't be fetched .*model.safetensors of someone/other"):
        fetch("hub:someone/other")


@pytest.mark.parametrize("reference", ["hub:someone", "hub:/", "hub:"])
def test_a_reference_without_a_repository(reference: str) -> None:
    with pytest.raises(UsageError, match="hub:OWNER/NAME"):
        fetch(reference)
