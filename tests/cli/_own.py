"""Networks of a user's, as commands take them: ``tests.cli._own:seven``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["Several", "grey", "keywords", "seven", "two_and_three", "wide_inside"]


def keywords(**keywords: Any) -> nn.Module:
    """Take ``num_classes`` among whatever else."""
    return _network(**keywords)


def seven() -> nn.Module:
    """Return a network of seven outputs, and no choice."""
    return _network(7)


def grey(num_classes: int = 4) -> nn.Module:
    """Return a network of pictures of one channel."""
    return _network(num_classes, channels=1)


def wide_inside() -> nn.Module:
    """Return a network of three outputs that has a layer of five."""
    return nn.Sequential(_network(5), nn.Linear(5, 3))


def two_and_three() -> nn.Module:
    """Return a network of three outputs that has a layer of two."""
    return nn.Sequential(_network(2), nn.Linear(2, 3))


class Several(nn.Module):
    """A network that returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux = _network(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.body(x)
        return {"out": out, "aux": self.aux(out)}


def _network(num_classes: int = 4, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )
