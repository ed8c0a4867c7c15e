from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import save_file

from rexport import models
from rexport._errors import UsageError, WeightsError
from rexport.models import published_weights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


def test_a_tag_names_weights(torchvision: Any) -> None:
    assert models.find("timm:resnet50").weights is None
    tagged = models.find("timm:resnet50.a1_in1k")
    assert tagged.weights == "hub:timm/resnet50.a1_in1k"
    for name in ("timm:hf-hub:timm/resnet50.a1_in1k", "hf-hub:timm/resnet50.a1_in1k"):
        assert models.find(name).weights == tagged.weights
        assert models.find(name).preprocessing == tagged.preprocessing


def test_named_weights_that_cannot_be_fetched(torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(_: str) -> Path:
        raise WeightsError("no network") from OSError("Name or service not known. Try again.")

    monkeypatch.setattr(published_weights, "fetch", offline)
    with pytest.raises(WeightsError) as caught:
        published_weights.fetch_named(models.find("timm:resnet50.a1_in1k"))
    assert str(caught.value) == (
        "timm:resnet50.a1_in1k names weights, hub:timm/resnet50.a1_in1k, which can't be fetched (Name or service not "
        "known); pass their file with --weights FILE, or name timm:resnet50 for random weights."
    )


def test_a_folder_as_on_the_hub(torchvision: Any, tmp_path: Path) -> None:
    configuration = {
        "architecture": "resnet18",
        "num_classes": 3,
        "label_names": ["cat", "dog", "owl"],
        "model_args": {"replace_stride_with_dilation": None},
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "crop_pct": 1.0,
            "crop_mode": "center",
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    trained = models.build("timm:resnet18", num_classes=3, seed=7)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    network = models.find(f"timm:local-dir:{tmp_path}")
    weights = published_weights.fetch_named(network)
    module = models.build(network.name, weights=weights)
    assert models.state_dict_hash(module) == models.state_dict_hash(trained)
    facts = models.known_facts(network, weights)
    assert facts.classes == ("cat", "dog", "owl")
    assert facts.preprocessing is not None
    assert (facts.preprocessing.size, facts.preprocessing.mean) == (64, (0.5, 0.5, 0.5))
    assert not facts.preprocessing.assumed
    others = models.known_facts(network, "other.pth")
    assert others.classes == ()
    assert others.preprocessing == replace(facts.preprocessing, assumed=True)  # it may have been trained otherwise


def test_what_is_no_configuration(torchvision: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"The config.json that timm:local-dir:.* names can't be read"):
        models.find(f"timm:local-dir:{tmp_path}")
    with pytest.raises(UsageError, match="timm takes names, hf-hub:OWNER/NAME and local-dir:FOLDER, and no ftp:"):
        models.find("timm:ftp:x")
