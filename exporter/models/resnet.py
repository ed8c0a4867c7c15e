"""ResNet and ResNeXt for ImageNet, with torchvision's state-dict names and bit for bit its outputs.

    basic block    y = relu(x' + BN(W₂ ∗ relu(BN(W₁ ∗ x))))                    two 3×3 convolutions
    bottleneck     y = relu(x' + BN(W₃ ∗ relu(BN(W₂ ∗ relu(BN(W₁ ∗ x))))))     1×1, 3×3, 1×1

where ``x'`` is ``x``, or ``BN(Wₛ ∗ x)`` with a 1×1 convolution where the shape changes (option B there).

He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.
Xie, Girshick, Dollár, Tu, He 2016, "Aggregated Residual Transformations for Deep Neural Networks",
arXiv:1611.05431: the bottleneck's 3×3 convolution in ``groups`` (the cardinality) of ``width_per_group``
channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "he_init"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Args:
        in_channels: Channels of the input.
        planes: Channels of the output.
        stride: Of the first convolution.
        downsample: Brings the input to the output's shape; ``None`` where they are the same.
        groups: 1; the paper of ResNeXt groups bottlenecks only (its section 3.3).
        width_per_group: 64, likewise.

    Raises:
        UsageError: ``groups`` or ``width_per_group`` is another.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        if groups != 1 or width_per_group != 64:
            raise UsageError("A BasicBlock has no groups; a ResNeXt is made of Bottlenecks.")
        self.conv1 = _conv3x3(in_channels, planes, stride=stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, planes, H / stride, W / stride)``."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        result: Tensor = self.relu(out)
        return result


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; with ``groups`` > 1 the block of ResNeXt.

    Args:
        in_channels: Channels of the input.
        planes: A quarter of the output's channels.
        stride: Of the 3×3 convolution.
        downsample: Brings the input to the output's shape; ``None`` where they are the same.
        groups: Groups of the 3×3 convolution, the cardinality.
        width_per_group: Channels of a group where ``planes`` is 64; they grow with ``planes``.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        width = planes * width_per_group // 64 * groups
        self.conv1 = _conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        # The paper strides the first 1×1 convolution, which then never sees three quarters of its input. All
        # public weights stride the 3×3 as here ("v1.5", Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        self.conv2 = _conv3x3(width, width, stride=stride, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, 4 planes, H / stride, W / stride)``."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        result: Tensor = self.relu(out)
        return result


class ResNet(nn.Module):
    """The paper's ImageNet network: a 7×7 stem, four stages of blocks, average pooling and a linear head.

    Args:
        block: :class:`BasicBlock` (depths 18 and 34) or :class:`Bottleneck` (50 and deeper, ResNeXt).
        layers: How many blocks each of the four stages has.
        num_classes: Outputs of the head.
        groups: Groups of the bottlenecks' 3×3 convolutions, 1 for ResNet.
        width_per_group: Channels of a group in the first stage, 64 for ResNet.

    Raises:
        UsageError: There are not four stages, or groups were asked of basic blocks.

    Example:
        >>> ResNet(BasicBlock, (2, 2, 2, 2)).fc.out_features  # ResNet-18
        1000
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        *,
        num_classes: int = 1000,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        if len(layers) != 4:
            raise UsageError(f"A ResNet for ImageNet has 4 stages, and layers={tuple(layers)} has {len(layers)}.")
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        def stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
            return _stage(block, in_channels, planes, blocks, stride, groups=groups, width_per_group=width_per_group)

        expansion = block.expansion
        self.layer1 = stage(64, 64, layers[0], 1)
        self.layer2 = stage(64 * expansion, 128, layers[1], 2)
        self.layer3 = stage(128 * expansion, 256, layers[2], 2)
        self.layer4 = stage(256 * expansion, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * expansion, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, H, W)``, to logits ``(N, num_classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def he_init(module: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_out), from PyTorch's global generator.

    He, Zhang, Ren, Sun 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, section 2.2: equation 14,
    which keeps the gradients' variance (fan_in, equation 10, the signals'), as torchvision does.
    """
    for child in module.modules():
        # drawing nothing for the meta device still costs seconds: it imports a compiler
        if isinstance(child, nn.Conv2d) and not child.weight.is_meta:
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    planes: int,
    blocks: int,
    stride: int,
    *,
    groups: int,
    width_per_group: int,
) -> nn.Sequential:
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(_conv1x1(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels))
    first = block(
        in_channels,
        planes,
        stride=stride,
        downsample=downsample,
        groups=groups,
        width_per_group=width_per_group,
    )
    rest = (block(out_channels, planes, groups=groups, width_per_group=width_per_group) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def _conv3x3(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def _conv1x1(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
