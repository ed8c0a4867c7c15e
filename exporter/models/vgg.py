"""VGG, the network without shortcuts that the ResNet paper compares its cost with (its figure 3).

Stages of 3×3 convolutions with ReLU, each followed by pooling, and three linear layers. State-dict names and outputs
are torchvision's. Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, column E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rexport.models.resnet import he_init

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Vgg"]

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class Vgg(nn.Module):
    """VGG-19: 16 convolutions and 3 linear layers.

    Args:
        num_classes: Outputs of the head.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 3
        for channels, count in _VGG19:
            for _ in range(count):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, 224, 224)``, to logits ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
