"""The blocks of ResNet, ResNeXt, and plain networks.

    basic block    y = relu(x' + BN(W₂ ∗ relu(BN(W₁ ∗ x))))                    two 3×3 convolutions
    bottleneck     y = relu(x' + BN(W₃ ∗ relu(BN(W₂ ∗ relu(BN(W₁ ∗ x))))))     1×1, 3×3, 1×1

``x'`` is what the shortcut makes of ``x`` (see :mod:`rexport.models.shortcuts`); a plain block has none. With a
cardinality, the bottleneck's 3×3 convolution is grouped: form (c) of ResNeXt's block.

He, Zhang, Ren, Sun 2015, arXiv:1512.03385; Xie, Girshick, Dollár, Tu, He 2016, arXiv:1611.05431.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rexport.models.shortcuts import join_of, shortcut_of
from rexport.models.spec import Shortcut

if TYPE_CHECKING:
    from torch import Tensor

    from rexport.models.spec import ResNetSpec

__all__ = ["BasicBlock", "Bottleneck", "ResidualBlock", "conv1x1", "conv3x3"]


class ResidualBlock(nn.Module):
    """What all blocks have in common: the shortcut, and how the two ways are joined.

    Args:
        spec: Of the network.
        in_channels: Channels of the input.
        width: Those that it works on.
        out_channels: Those of its output.
        stride: 1, or 2 to halve the map.
    """

    downsample: nn.Module | None
    join: nn.Module | None
    last_norm = "bn3"  # the name of the BatchNorm that ends the residual

    def __init__(self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self._make_layers(spec, in_channels, width, out_channels, stride=stride)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut_of(spec, in_channels, out_channels, stride=stride)
        self.join = join_of(spec, in_channels, out_channels, stride=stride)
        self.plain = spec.shortcut is Shortcut.NONE

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        out = self._residual(x)
        if not self.plain:
            shortcut = x if self.downsample is None else self.downsample(x)
            out = out + shortcut if self.join is None else self.join(x, shortcut, out)
        result: Tensor = self.relu(out)
        return result

    def _make_layers(self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int) -> None:
        raise NotImplementedError

    def _residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class BasicBlock(ResidualBlock):
    """Two 3×3 convolutions."""

    last_norm = "bn2"

    def _make_layers(
        self,
        spec: ResNetSpec,  # noqa: ARG002
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int,
    ) -> None:
        self.conv1 = conv3x3(in_channels, width, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def _residual(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.bn2(self.conv2(out))
        return result


class Bottleneck(ResidualBlock):
    """1×1, 3×3 and 1×1 convolutions, the 3×3 in as many groups as the cardinality."""

    def _make_layers(self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int) -> None:
        first, second = spec.strides(stride)
        self.conv1 = conv1x1(in_channels, width, stride=first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=second, groups=spec.cardinality)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def _residual(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        result: Tensor = self.bn3(self.conv3(out))
        return result


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without bias that keeps the map's size, but for the stride."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 1×1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
