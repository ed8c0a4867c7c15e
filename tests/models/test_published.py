"""Depths, parameters and multiply-adds against the papers' own tables."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rexport import models
from tests._deep import deep

_ROWS = json.loads(Path(__file__).with_name("published.json").read_text())["networks"]
_UP_TO_200_LAYERS = [network.name for network in models.networks() if (network.depth or 0) <= 200]


def _holds(printed: str, count: int) -> bool:
    """Say whether a count is within one unit of a printed figure's last digit, or 5 % of one with a ``~``."""
    figure = Decimal(printed.removeprefix("~"))
    unit = figure / 20 if printed.startswith("~") else Decimal(1).scaleb(figure.as_tuple().exponent)  # type: ignore[arg-type]
    return abs(Decimal(count) - figure) < unit


def _parameters(network: models.Network, without: str | None) -> int:
    with torch.device("meta"):
        module = network.construct(network.num_classes)
    kinds = {"BatchNorm": nn.BatchNorm2d, None: ()}[without]
    left_out = {p for child in module.modules() if isinstance(child, kinds) for p in child.parameters()}
    return sum(p.numel() for p in module.parameters() if p not in left_out)


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: f"{row['network']} {row['table'].split(',')[0]}")
def test_a_network_costs_what_its_paper_says(row: dict[str, Any]) -> None:
    network = models.find(row["network"])
    if "macs" in row:
        assert _holds(row["macs"], network.summary().macs)
    if "parameters" in row:
        assert _holds(row["parameters"], _parameters(network, row.get("without")))


def test_a_wrong_figure_is_seen() -> None:
    assert _holds("3.8e9", 3_858_000_000)
    assert not _holds("3.8e9", 4_089_000_000)
    assert _holds("~7.8e9", 7_970_000_000)
    assert not _holds("~7.8e9", 8_300_000_000)
    assert not _holds("0.27e6", 280_000)


@pytest.mark.parametrize("name", [*_UP_TO_200_LAYERS, *deep("cifar_preact_resnet1001", "cifar_resnet1202")])
def test_a_network_has_as_many_layers_as_its_name_says(name: str) -> None:
    network = models.find(name)
    with torch.device("meta"):
        module = network.construct(network.num_classes)
    layers = [
        layer
        for layer, child in module.named_modules()
        if isinstance(child, (nn.Conv2d, nn.Linear)) and "downsample" not in layer
    ]
    in_name = re.search(r"\d+", name)
    assert in_name is not None
    # ResNet-D's stem has three layers where the others have one, and keeps the name
    assert len(layers) - 2 * (name == "resnet50d") == network.depth == int(in_name[0])
    assert network.num_classes == {"imagenet": 1000, "cifar10": 10}[str(network.dataset)]
    assert network.input_size == {"imagenet": 224, "cifar10": 32}[str(network.dataset)]


def test_plain_and_residual_networks_of_the_paper_cost_the_same() -> None:
    """With option A, shortcuts have no weights: "fair comparisons", section 3.3."""
    for depth in (20, 32, 44, 56):
        plain, residual = (models.find(f"cifar_{kind}{depth}").summary() for kind in ("plain", "resnet"))
        assert (plain.parameters, plain.macs) == (residual.parameters, residual.macs)


def test_vgg19_costs_five_times_as_much_as_resnet34() -> None:
    """ "18 % of VGG-19" (section 3.3), with option A as there."""
    ratio = models.find("resnet[depth=34,shortcut=A]").summary().macs / models.find("vgg19").summary().macs
    assert ratio == pytest.approx(0.18, abs=0.01)
