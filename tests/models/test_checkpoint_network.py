from __future__ import annotations

import re
import sys
from argparse import Namespace
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from rexport import models
from rexport._errors import UsageError, WeightsError
from rexport.models import checkpoint_network
from rexport.models.checkpoint_network import network_of

if TYPE_CHECKING:
    from pathlib import Path

_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


def _weights(name: str = "cifar_resnet8", classes: int = 7) -> dict[str, torch.Tensor]:
    return models.build(name, num_classes=classes).state_dict()


def _saved(path: Path, content: object) -> Path:
    torch.save(content, path / "best.pt")
    return path / "best.pt"


def test_pytorchs_example(tmp_path: Path) -> None:
    weights = {f"module.{name}": tensor for name, tensor in _weights().items()}
    path = _saved(tmp_path, {"arch": "cifar_resnet8", "epoch": 90, "state_dict": weights})
    assert network_of(path) == "cifar_resnet8"


def test_lightning(tmp_path: Path) -> None:
    weights = {f"net.{name}": tensor for name, tensor in _weights().items()}
    settings = {"lr": 0.1, "model_name": "cifar_resnet8"}
    path = _saved(tmp_path, {"state_dict": weights, "hyper_parameters": settings, "pytorch-lightning_version": "2.5"})
    assert network_of(path) == "cifar_resnet8"


@_timm
def test_timms_trainer(torchvision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, settings = _weights("timm:test_resnet"), Namespace(model="test_resnet", img_size=96, model_kwargs={})
    checkpoint = {"arch": "test_resnet", "state_dict": weights, "state_dict_ema": weights, "args": settings}
    assert network_of(_saved(tmp_path, checkpoint)) == "timm:test_resnet"
    settings.model_kwargs = {"act_layer": "silu"}
    monkeypatch.setattr(checkpoint_network, "_other_names", lambda: [["timm:test_resnet"]])
    with pytest.raises(UsageError, match=r"says that it is of timm:test_resnet with model_kwargs=.*silu"):
        network_of(_saved(tmp_path, checkpoint))


@pytest.mark.slow
def test_torchvisions_references(torchvision: Any, tmp_path: Path) -> None:
    settings = Namespace(model="resnet18", val_crop_size=224)
    path = _saved(tmp_path, {"model": _weights("resnet18"), "args": settings, "epoch": 3})
    assert network_of(path) == "torchvision:resnet18"


@pytest.mark.parametrize("network", ["cifar_resnet8", "resnet[depth=8,stages=3]"])
def test_our_own_weights(network: str, tmp_path: Path) -> None:
    module = models.build(network, num_classes=4)
    models.save_weights(module, tmp_path / "w.safetensors", models.WeightsFacts(network=network))
    assert network_of(tmp_path / "w.safetensors") == network


@pytest.mark.parametrize("stated", ["os:system", "tests.cli._own:seven", "timm:resnet18[checkpoint_path='x.pth']"])
def test_no_module_is_imported(stated: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(f"of {stated}, and modules are imported only where you name them")):
        network_of(_saved(tmp_path, {"network": stated, "state_dict": _weights()}))


def test_settings_without_a_name_and_files_without_tensors(tmp_path: Path) -> None:
    path = _saved(tmp_path, {"state_dict": nn.Linear(3, 4).state_dict(), "args": Namespace(gp="max")})
    with pytest.raises(UsageError, match="holds only weights; name their network: it fits none of the zoo"):
        network_of(path)
    with pytest.raises(WeightsError, match="holds no tensors"):
        network_of(_saved(tmp_path, {}))


@pytest.mark.slow
def test_a_network_that_looks_like_it(tmp_path: Path) -> None:
    path = _saved(tmp_path, _weights("cifar_resnet26"))
    with pytest.raises(UsageError) as caught:
        network_of(path)
    assert str(caught.value) == (
        f"{path} holds only weights; name their network: it looks like cifar_resnet26 with 7 classes (or "
        f"cifar_plain26, whose weights look the same); type "
        f"`rexport onnx cifar_resnet26 --weights {path} -o best.onnx`."
    )
    path = _saved(tmp_path, {"arch": "resnet50", "state_dict": _weights()})
    with pytest.raises(UsageError, match="of resnet50, which its weights do not fit: it looks like cifar_resnet8"):
        network_of(path)


@_timm
@pytest.mark.slow
def test_a_network_of_timms_that_looks_like_it(
    torchvision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "timm:test_resnet" in [name for names in checkpoint_network._other_names() for name in names]
    monkeypatch.setattr(checkpoint_network, "_other_names", lambda: [["timm:resnet18", "timm:test_resnet"]])
    weights = _weights("timm:test_resnet")
    with pytest.raises(UsageError, match=r"it looks like timm:test_resnet with 7 classes; type `rexport onnx timm:"):
        network_of(_saved(tmp_path, weights))
    weights["more.weight"] = torch.zeros(3)
    with pytest.raises(UsageError, match=r"the nearest is timm:test_resnet, of which it has 9.% of the tensors"):
        network_of(_saved(tmp_path, weights))
    with pytest.raises(UsageError, match="it fits none of the zoo"):
        network_of(_saved(tmp_path, nn.Linear(3, 4).state_dict()))


def test_a_module_of_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = ModuleType("ultralytics.nn.tasks")
    tasks.ClassificationModel = type(  # type: ignore[attr-defined]
        "ClassificationModel", (nn.Module,), {"__module__": tasks.__name__}
    )
    with monkeypatch.context() as patch:
        for package in ("ultralytics", "ultralytics.nn"):
            patch.setitem(sys.modules, package, ModuleType(package))
        patch.setitem(sys.modules, tasks.__name__, tasks)
        path = _saved(tmp_path, {"model": tasks.ClassificationModel(), "epoch": 3})
    with pytest.raises(WeightsError, match=r"pickled module of Ultralytics .*`yolo export model="):
        network_of(path)
