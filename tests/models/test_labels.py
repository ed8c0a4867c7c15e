from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import save_file

from rexport import models

if TYPE_CHECKING:
    from pathlib import Path


def test_imagenets_classes_are_in_the_order_of_the_outputs() -> None:
    names = models.class_names("imagenet", 1000)
    assert len(names) == len(set(names)) == 1000
    assert all(name and name == name.strip() for name in names)
    # indices that the literature knows by heart
    known = {
        0: "tench",
        207: "golden retriever",
        281: "tabby",
        388: "giant panda",
        954: "banana",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in known} == known


def test_cifar10s_classes_sort_by_name() -> None:
    names = models.class_names("cifar10", 10)
    assert len(names) == 10
    assert list(names) == sorted(names)


@pytest.mark.parametrize(("dataset", "num_classes"), [("imagenet", 10), ("cifar10", 1000), ("other", 10)])
def test_other_classes_are_not_known(dataset: str, num_classes: int) -> None:
    assert models.class_names(dataset, num_classes) == ()


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
