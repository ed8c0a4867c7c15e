from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from rexport import models
from rexport._errors import UsageError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

_OWN = """
import torch
from torch import nn

def net(num_classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def any_keywords(**keywords):
    return net(**keywords)

def keywords_for_nothing(**keywords):
    return Fixed(**keywords)

def must_be_told(num_classes):
    return net(num_classes)

def compiled():
    return torch.compile(nn.Sequential(nn.Flatten(), torch.compile(nn.Linear(12, 4)))).half()

def empty():
    with torch.device("meta"):
        return net()

def broken():
    raise KeyError("no such layer")

def needs(width, kind, *, num_classes=3, pretrained):
    assert (kind, pretrained) == ("wide", False)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

def asks_for_weights(weights, pretrained=True):
    assert weights is None and pretrained
    return net()

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return {"logits": self.head(x), "features": x}

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


@pytest.mark.parametrize(
    "name", ["resnetv2_50x1_bit", "resnet50", "resnet50.tv_in1k", "seresnext26t_32x4d", "resnet32ts"]
)
def test_timms_pictures_are_timms(name: str, torchvision: Any) -> None:
    timm = pytest.importorskip("timm")
    preprocessing = models.find(f"timm:{name}").preprocessing
    assert preprocessing is not None
    transform = timm.data.create_transform(**timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict()))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 417, 3), np.uint8))
    ours = preprocessing.normalise(preprocessing.crop(picture))
    # one rounding of the last bit: pixels / 255 may be a product with 1 / 255
    assert np.abs(ours - transform(picture).numpy()).max() <= 2**-23 / min(preprocessing.std)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0", "inception_v3"])
def test_torchvisions_pictures_are_torchvisions(name: str, torchvision: Any) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    network = models.find(f"torchvision:{name}")
    assert network.preprocessing is not None
    assert network.preprocessing.assumed == (name == "resnet50")  # of which V1 and V2 are prepared for differently
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 417, 3), np.uint8))
    ours = network.preprocessing.normalise(network.preprocessing.crop(picture))
    assert np.abs(ours - weights.transforms()(picture).numpy()).max() <= 2**-23 / min(network.preprocessing.std)


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
        ("OWN:broken", "OWN:broken makes no network: KeyError: 'no such layer'"),
    ],
)
def test_what_is_no_network_is_refused(own: str, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why.replace("OWN", own)):
        models.build(name.replace("OWN", own))


@pytest.mark.parametrize("name", ["net", "any_keywords"])
def test_a_number_of_classes_that_is_asked_for(own: str, name: str) -> None:
    assert models.build(f"{own}:{name}", num_classes=5)[3].out_features == 5
    assert models.build(f"{own}:{name}")[3].out_features == 3  # its own default


def test_without_a_default_there_are_as_many_as_in_imagenet(own: str) -> None:
    assert models.build(f"{own}:must_be_told")[3].out_features == 1000
    assert models.build(f"{own}:must_be_told", num_classes=5)[3].out_features == 5


@pytest.mark.parametrize("name", ["Fixed", "keywords_for_nothing"])
def test_a_number_of_classes_that_has_no_effect(own: str, name: str) -> None:
    with pytest.raises(UsageError, match="makes a network of another number of outputs than 5, and takes no num_class"):
        models.build(f"{own}:{name}", num_classes=5)
    if name == "Fixed":
        assert models.build(f"{own}:Fixed", num_classes=2).head.out_features == 2


@pytest.mark.parametrize("name", ["net", "any_keywords", "must_be_told"])
def test_the_weights_say_how_many_classes(own: str, name: str, tmp_path: Path) -> None:
    trained = models.build(f"{own}:net", num_classes=6, seed=1)
    torch.save({"model": trained.state_dict()}, tmp_path / "w.pth")
    built = models.build(f"{own}:{name}", weights=tmp_path / "w.pth")
    assert models.state_dict_hash(built) == models.state_dict_hash(trained)
    with pytest.raises(WeightsError, match="weights are for 6 classes and the network has 5 outputs"):
        models.build(f"{own}:{name}", weights=tmp_path / "w.pth", num_classes=5)


def test_weights_of_more_classes_than_a_fixed_network_has(own: str, tmp_path: Path) -> None:
    torch.save({"head.weight": torch.ones(7, 4), "head.bias": torch.ones(7)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="makes a network of another number of outputs than 7"):
        models.build(f"{own}:Fixed", weights=tmp_path / "w.pth")


def test_a_compiled_half_network_is_as_those_of_the_zoo(own: str) -> None:
    network = models.build(f"{own}:compiled")
    assert {name: tensor.dtype for name, tensor in network.state_dict().items()} == {
        "1.weight": torch.float32,
        "1.bias": torch.float32,
    }


def test_a_network_on_the_meta_device_needs_weights(own: str, tmp_path: Path) -> None:
    trained = models.build(f"{own}:net", seed=1)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    built = models.build(f"{own}:empty", weights=tmp_path / "w.pth")
    assert models.state_dict_hash(built) == models.state_dict_hash(trained)
    with pytest.raises(UsageError, match="is made on the meta device, without numbers; pass --weights FILE"):
        models.build(f"{own}:empty")


def test_of_several_results_one_is_returned(own: str) -> None:
    assert models.build(f"{own}:Fixed")(torch.zeros(1, 4)).shape == (1, 2)
    assert models.build(f"{own}:Fixed", result="features")(torch.zeros(1, 4)).shape == (1, 4)


def test_what_a_callable_makes_must_be_a_module() -> None:
    with pytest.raises(UsageError, match=r"builtins:dict makes a dict, and not a torch.nn.Module"):
        models.build("builtins:dict")


def test_an_ensemble_of_references(own: str) -> None:
    network = models.build(f"resnet18+{own}:net")
    assert [type(member).__name__ for member in network.members] == ["ResNet", "Sequential"]


def test_arguments_in_brackets(own: str) -> None:
    assert models.build(f"{own}:net[num_classes=6]")[3].out_features == 6
    network = models.find(f"{own}:needs[width=5, kind=wide]")
    assert network.name == f"{own}:needs[width=5,kind='wide']"
    assert models.find(network.name).name == network.name
    assert network.construct(None)[0].out_channels == 5
    assert network.construct(2)[3].out_features == 2


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("needs", "needs needs arguments; pass them in brackets: '.*:needs\\[width=…,kind=…\\]'"),
        ("needs[width=5]", "pass them in brackets: '.*:needs\\[kind=…\\]'"),
        ("needs[5]", "write arguments in brackets as \\[NAME=VALUE,NAME=VALUE\\]"),
        ("needs[width=5", "write arguments in brackets"),
        ("needs[width=open('f')]", "write arguments in brackets"),
        ("net[depth=3]", "makes no network: TypeError: .*depth"),
    ],
)
def test_bad_arguments_in_brackets(reference: str, why: str, own: str) -> None:
    with pytest.raises(UsageError, match=why):
        models.build(f"{own}:{reference}")


def test_required_weights_are_none(own: str) -> None:
    assert models.build(f"{own}:asks_for_weights")[3].out_features == 3


def test_arguments_of_libraries(torchvision: Any) -> None:
    pytest.importorskip("timm")
    wide = models.find("torchvision:resnet18[width_per_group=64,num_classes=5]")
    assert (wide.name, wide.num_classes) == ("torchvision:resnet18[width_per_group=64,num_classes=5]", 5)
    assert wide.construct(None).fc.out_features == 5
    assert models.build("timm:test_resnet[in_chans=1]").conv1[0].in_channels == 1
    assert models.build("torchvision.models:resnet18", num_classes=3).fc.out_features == 3
    for name in (
        "torchvision:resnet18[dept=3]",
        "torchvision:resnet18[weights=DEFAULT]",
        "timm:test_resnet[pretrained=True]",
    ):
        with pytest.raises(UsageError, match="can't be made"):
            models.build(name)
