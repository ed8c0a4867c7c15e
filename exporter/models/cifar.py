"""The residual networks for CIFAR-10 of He et al. 2015, arXiv:1512.03385, section 4.2.

Depth 6n + 2: a 3×3 stem, three stages of n basic blocks with 16, 32 and 64 channels on maps of 32², 16² and
8², average pooling and a linear head. All shortcuts are the identity (option A), without parameters: where
the width doubles, every second row and column is taken and the new channels are zero.

State-dict names are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1`` …, ``fc``). Weights of the public
``pytorch_resnet_cifar10`` fit once its head, ``linear``, is called ``fc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from rexport._errors import UsageError
from rexport.models.resnet import BasicBlock, he_init

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CifarResNet", "PadShortcut"]


class CifarResNet(nn.Module):
    """ResNet-20, -32, -44, -56, -110 and any other depth 6n + 2 for 32×32 images.

    Args:
        depth: Layers with weights, 6n + 2 with n ≥ 1.
        num_classes: Outputs of the head.

    Raises:
        UsageError: There is no such depth.

    Example:
        >>> sum(p.numel() for p in CifarResNet(20).parameters())  # 0.27M in the paper's table 6
        269722
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise UsageError(f"A ResNet for CIFAR has a depth of 6n + 2 (8, 14, 20, 26 …), and not {depth}.")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, 32, 32)``, to logits ``(N, num_classes)``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class PadShortcut(nn.Module):
    """Option A's shortcut: halve the map by leaving out every second row and column, pad channels with zeros.

    The paper does not say where the zeros go. Half stand before the input's channels and half after, as
    ``pytorch_resnet_cifar10`` has it: trained weights depend on it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, larger by an even number.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 2, W / 2)``."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    if in_channels == channels:
        first = BasicBlock(channels, channels)
    else:
        first = BasicBlock(in_channels, channels, stride=2, downsample=PadShortcut(in_channels, channels))
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
