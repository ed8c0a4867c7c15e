"""Trained weights get as many real pictures right as they are known to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport import models
from tests._deep import deep
from tests.models._images import read_images, right

if TYPE_CHECKING:
    from pathlib import Path

_RESNEXT = "resnext[depth=29,cardinality=8,base_width=4,expansion=2,stem_width=64,stages=3,input_size=32]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "weights", "pictures", "count"),
    [
        ("cifar_resnet20", "cifar_resnet20.th", "cifar10", 776),
        ("cifar_preact_resnet20", "cifar_preact_resnet20-jpeg.safetensors", "cifar10", 716),
        (_RESNEXT, "cifar_resnext29-small-jpeg.safetensors", "cifar10", 700),
        *deep(
            ("cifar_resnet44", "cifar_resnet44.th", "cifar10", 793),
            ("cifar_resnet20", "cifar_resnet20.th", "cifar10-jpeg", 4051),
            ("cifar_resnet20", "cifar_resnet20-jpeg.safetensors", "cifar10-jpeg", 4383),
            ("cifar_preact_resnet20", "cifar_preact_resnet20-jpeg.safetensors", "cifar10-jpeg", 4142),
            (_RESNEXT, "cifar_resnext29-small-jpeg.safetensors", "cifar10-jpeg", 4029),
        ),
    ],
)
def test_as_many_pictures_are_right_as_known(
    network: str, weights: str, pictures: str, count: int, data_dir: Path
) -> None:
    images, labels = read_images(data_dir / pictures / "test")
    built = models.build(network, weights=data_dir / "weights" / weights)
    # one image: the order of additions differs between machines, and one image may lie that near a boundary
    assert right(built, images, labels) == pytest.approx(count, abs=1)


def test_the_spec_of_the_trained_resnext_in_python(data_dir: Path) -> None:
    network = models.resnext(depth=29, cardinality=8, base_width=4, expansion=2, stem_width=64, stages=3, input_size=32)
    models.load_weights(network, data_dir / "weights" / "cifar_resnext29-small-jpeg.safetensors")
    assert sum(p.numel() for p in network.parameters()) == 361_674
