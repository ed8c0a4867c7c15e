from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from rexport import models
from rexport.imagenet import ilsvrc2012_synsets, imagenet_classes, imagenet_outputs


def test_imagenets_classes_are_in_the_order_of_the_outputs() -> None:
    names = models.imagenet_classes()
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


def test_the_ids_are_in_the_order_of_the_challenge() -> None:
    synsets = ilsvrc2012_synsets()
    assert len(synsets) == len(set(synsets)) == 1000
    # the first lines of ILSVRC2012_validation_ground_truth.txt, and the classes of these pictures
    ground_truth = {490: "sea snake", 361: "alp", 171: "Shetland sheepdog", 822: "soup bowl", 297: "cradle"}
    outputs = imagenet_outputs([synsets[number - 1] for number in ground_truth], ())
    assert outputs is not None
    assert [imagenet_classes()[output] for output in outputs] == list(ground_truth.values())


def test_the_ids_are_timms() -> None:
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        pytest.skip("timm is not installed")
    text = Path(spec.origin).parent.joinpath("data", "_info", "imagenet_synsets.txt").read_text()
    assert text.split() == sorted(ilsvrc2012_synsets())


def test_only_imagenets_ids_of_imagenets_classes_are_outputs() -> None:
    assert imagenet_outputs(["n03000684", "n01440764"], imagenet_classes()) == (491, 0)
    assert imagenet_outputs(["n03000684", "tench"], imagenet_classes()) is None
    assert imagenet_outputs(["n01440764"], [f"class {i}" for i in range(1000)]) is None
    assert imagenet_outputs([], ()) is None
