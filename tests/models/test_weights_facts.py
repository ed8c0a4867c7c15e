from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rexport import models
from rexport._errors import WeightsError
from rexport.models import WeightsFacts, read_weights_facts, save_weights
from rexport.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

_FACTS = WeightsFacts(
    preprocessing=Preprocessing(size=32, mean=(0, 0, 0), std=(0.1, 0.1, 0.1), interpolation=Interpolation.BICUBIC),
    classes=("blue", "réd"),
)


@pytest.mark.parametrize("facts", [_FACTS, WeightsFacts(), WeightsFacts(classes=("a", "b"))])
def test_what_is_written_is_read(tmp_path: Path, facts: WeightsFacts) -> None:
    module, path = models.build("cifar_resnet8", num_classes=2), tmp_path / "w.safetensors"
    save_weights(module, path, facts)
    assert read_weights_facts(path) == facts
    for name, tensor in load_file(path).items():
        assert torch.equal(tensor, module.state_dict()[name]), name


def test_the_metadata_is_in_order(tmp_path: Path) -> None:
    """The library's order is that of a hash, which is another in every process."""
    save_weights(models.build("cifar_resnet8"), tmp_path / "w.safetensors", _FACTS)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert set(file.metadata()) == {"classes", "preprocessing"}
    data = (tmp_path / "w.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == ["classes", "preprocessing"]
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_a_preprocessing_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(models.build("cifar_resnet8").state_dict(), path, {"preprocessing": '{"size": 0}'})
    with pytest.raises(WeightsError, match=r"w\.safetensors says of its preprocessing can't be read"):
        read_weights_facts(path)


def test_weights_may_say_what_their_classes_are(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(models.build("cifar_resnet8", num_classes=3).state_dict(), path, {"classes": json.dumps(["a", "b", "c"])})
    assert models.stored_classes(path) == ("a", "b", "c")
    assert models.build("cifar_resnet8", weights=path).fc.out_features == 3


@pytest.mark.parametrize(
    "metadata", [None, {"classes": "not json"}, {"classes": "7"}, {"classes": "[1, 2]"}, {"a": "b"}]
)
def test_weights_that_do_not_say(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(models.build("cifar_resnet8").state_dict(), tmp_path / "w.safetensors", metadata)
    assert models.stored_classes(tmp_path / "w.safetensors") == ()


def test_other_files_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for weights in (None, tmp_path / "broken.safetensors", tmp_path / "missing.safetensors", "w.pth", "hub:a/b"):
        assert models.stored_classes(weights) == ()
