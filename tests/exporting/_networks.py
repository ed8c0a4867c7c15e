"""Networks that are not in the zoo: a small one, and one as users write them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def pictures(batch: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, height, width), dtype=np.float32)


class Small(nn.Module):
    """Two convolutions: what is exported in a third of the time of the zoo's smallest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class Gate(nn.Module):
    """One module, several operators, called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x) * x * self.scale


class Handmade(nn.Module):
    """Functions, a shared ReLU, several operators in a module, dropout, and names that collide with the exporter's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.gate = Gate(8)
        self.drop = nn.Dropout(0.5)
        self.logits = nn.Linear(8, 6)  # as the file's output is called, and not the last
        self.add = nn.Parameter(torch.full((1, 8, 1, 1), 0.1))  # as an operator is called
        self.act = nn.Tanh()
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)) + x)
        x = self.gate(x)
        x = F.relu(self.gate(self.conv3(x)) + self.add)
        x = torch.flatten(self.drop(x.mean((2, 3))), 1)
        return self.head(self.act(self.logits(x)))
