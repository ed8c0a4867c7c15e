from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from rexport import models
from rexport._errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_OWN = """
from torch import nn

def net(num_classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, in the folder that they work in."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(_OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_torchvisions_networks(torchvision: Any) -> None:
    network = models.find("torchvision:resnet18")
    assert (network.input_size, network.num_classes, network.dataset, network.depth) == (224, 1000, "imagenet", None)
    ours, theirs = models.build("resnet18", seed=1), models.build("torchvision:resnet18", seed=1, num_classes=7)
    assert type(theirs).__module__.startswith("torchvision.")
    assert theirs.fc.out_features == 7
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_timms_networks(torchvision: Any) -> None:
    pytest.importorskip("timm")
    assert models.find("timm:resnetv2_50").input_size == 224
    network = models.build("timm:resnetv2_50", num_classes=4)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize("where", ["torchvision", "timm"])
def test_an_unknown_name_gets_the_nearest(where: str, torchvision: Any) -> None:
    pytest.importorskip(where if where == "timm" else "torch")
    with pytest.raises(UsageError, match=f"{where} has no network 'resnet55'. Did you mean .*resnet50"):
        models.find(f"{where}:resnet55")


def test_an_own_callable(own: str) -> None:
    assert models.build(f"{own}:net", num_classes=5)[3].out_features == 5
    assert models.build(f"{own}:Fixed").head.out_features == 2
    assert models.find(f"{own}:net").dataset is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no.such.module:net", "module no.such.module can't be imported: No module named 'no'"),
        ("OWN:nothing", "has no callable 'nothing'"),
        ("OWN:number", "has no callable 'number'"),
    ],
)
def test_what_is_no_network_is_refused(own: str, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        models.build(name.replace("OWN", own))


def test_what_a_callable_makes_must_be_a_module() -> None:
    with pytest.raises(UsageError, match=r"builtins:dict makes a dict, and not a torch.nn.Module"):
        models.build("builtins:dict")


def test_an_ensemble_of_references(own: str) -> None:
    network = models.build(f"resnet18+{own}:net")
    assert [type(member).__name__ for member in network.members] == ["ResNet", "Sequential"]
