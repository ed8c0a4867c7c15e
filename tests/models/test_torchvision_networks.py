from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from rexport import models
from rexport._errors import UsageError
from rexport.models.published_weights import fit_epsilon
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from pathlib import Path

_RETINANET = "torchvision:retinanet_resnet50_fpn"


@pytest.mark.slow
def test_a_segmentation_network_gives_out(torchvision: Any, tmp_path: Path) -> None:
    network = models.find("torchvision:fcn_resnet50")
    assert (network.input_size, network.num_classes) == (520, 21)
    assert network.preprocessing is not None
    assert network.preprocessing.assumed  # torchvision takes whole pictures
    trained = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, aux_loss=True, num_classes=4
    ).eval()
    torch.save({"model": trained.state_dict(), "epoch": 3}, tmp_path / "model_3.pth")
    notes: list[str] = []
    module = models.build("torchvision:fcn_resnet50", weights=tmp_path / "model_3.pth", tell=notes.append)
    assert len(notes) == 1
    assert "left out of" in notes[0]
    assert "aux_classifier.0.weight" in notes[0]
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(module(images), trained(images)["out"])


@pytest.mark.slow
def test_a_detectors_backbone_is_as_in_the_detector(torchvision: Any, tmp_path: Path) -> None:
    detector = torchvision.models.get_model(
        "retinanet_resnet50_fpn", weights=None, weights_backbone=None, num_classes=5
    ).eval()
    torch.save(detector.state_dict(), tmp_path / "w.pth")
    notes: list[str] = []
    module = models.build(_RETINANET, weights=tmp_path / "w.pth", tell=notes.append)  # the head's classes are found
    assert len(notes) == 1
    assert "the ε of its BatchNorms; taking 1e-5" in notes[0]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(module(images), detector.backbone(images)["0"])


def test_a_detector_is_no_classifier(torchvision: Any) -> None:
    with pytest.raises(UsageError, match=r"as many boxes as it finds.*--features backbone.body.layer4"):
        Source.parse(_RETINANET)
    for name in torchvision.models.list_models(module=torchvision.models.detection):
        network = models.find(f"torchvision:{name}")
        stage = network.no_classifier.partition("--features ")[2].removesuffix("`.")
        assert network.preprocessing is not None
        with torch.device("meta"):
            assert not isinstance(network.construct(None).get_submodule(stage), nn.ModuleList)


def test_the_oldest_detectors_have_no_epsilon(torchvision: Any) -> None:
    network = models.find(_RETINANET)
    module = nn.Sequential(nn.BatchNorm2d(3))
    fit_epsilon(network, module, "torchvision:RetinaNet_ResNet50_FPN_Weights.COCO_V1", pytest.fail)
    assert module[0].eps == 0
    newer = nn.Sequential(nn.BatchNorm2d(3))
    fit_epsilon(models.find(f"{_RETINANET}_v2"), newer, "w.pth", pytest.fail)
    assert newer[0].eps == 1e-5
