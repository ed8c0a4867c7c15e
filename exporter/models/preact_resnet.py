"""Pre-activation ResNet: BatchNorm and ReLU before each convolution, and nothing after the addition.

    basic block    y = x' + W₂ ∗ r(BN₂(W₁ ∗ r(BN₁(x))))
    bottleneck     y = x' + W₃ ∗ r(BN₃(W₂ ∗ r(BN₂(W₁ ∗ r(BN₁(x))))))

where ``x'`` is ``x``; or ``Wₛ ∗ r(BN₁(x))`` where the shape changes: the activation comes before the two ways part, as
in the authors' code. After the last block come one more BatchNorm and ReLU (the appendix of the paper).

For ImageNet the stem has its BatchNorm and ReLU before the pooling, and the first block none of its own; that too is
the authors'. For CIFAR the stem is a convolution alone.

He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rexport.models.blocks import conv1x1, conv3x3
from rexport.models.resnet import calm, he_init, stages_of, stem_of
from rexport.models.shortcuts import PadShortcut, shortcut_of
from rexport.models.spec import Block, Shortcut, Stem

if TYPE_CHECKING:
    from torch import Tensor

    from rexport.models.spec import ResNetSpec

__all__ = ["PreActBlock", "PreActResNet"]


class PreActBlock(nn.Module):
    """A basic block or a bottleneck with pre-activation.

    Args:
        spec: Of the network.
        in_channels: Channels of the input.
        width: Those that it works on.
        out_channels: Those of its output.
        stride: 1, or 2 to halve the map.
        activated: Whether the input comes activated already, so that the block does not begin with it.
    """

    bn3: nn.BatchNorm2d | None
    conv3: nn.Conv2d | None

    def __init__(
        self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int, activated: bool
    ) -> None:
        super().__init__()
        self.bn1 = None if activated else nn.BatchNorm2d(in_channels)
        if spec.block is Block.BASIC:
            self.conv1 = conv3x3(in_channels, width, stride=stride)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv2 = conv3x3(width, out_channels)
            self.bn3 = self.conv3 = None
        else:
            first, second = spec.strides(stride)
            self.conv1 = conv1x1(in_channels, width, stride=first)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv2 = conv3x3(width, width, stride=second, groups=spec.cardinality)
            self.bn3 = nn.BatchNorm2d(width)
            self.conv3 = conv1x1(width, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut_of(spec, in_channels, out_channels, stride=stride)
        self.plain = spec.shortcut is Shortcut.NONE

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        active = x if self.bn1 is None else self.relu(self.bn1(x))
        out: Tensor = self.conv2(self.relu(self.bn2(self.conv1(active))))
        if self.bn3 is not None and self.conv3 is not None:
            out = self.conv3(self.relu(self.bn3(out)))
        if self.plain:
            return out
        if self.downsample is None:
            return out + x
        # zero-padding is still the identity; a projection takes what is activated
        shortcut: Tensor = self.downsample(x if isinstance(self.downsample, PadShortcut) else active)
        return out + shortcut


class PreActResNet(nn.Module):
    """A stem, stages of pre-activation blocks, a last BatchNorm and ReLU, average pooling and a linear head.

    Args:
        spec: What it is made of; ``pre_activation`` is taken for granted.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.conv1 = stem_of(spec)
        activated = spec.stem is not Stem.CONV3
        self.bn1 = nn.BatchNorm2d(spec.stem_width) if activated else None
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if activated else None

        def block(spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int) -> PreActBlock:
            nonlocal activated
            is_activated, activated = activated, False
            return PreActBlock(spec, in_channels, width, out_channels, stride=stride, activated=is_activated)

        for index, stage in enumerate(stages_of(spec, block)):
            self.add_module(f"layer{index + 1}", stage)
        self.bn = nn.BatchNorm2d(spec.outputs[-1])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(spec.outputs[-1], spec.num_classes)
        self.stages = spec.stages
        he_init(self)
        blocks = [child for child in self.modules() if isinstance(child, PreActBlock)]
        if spec.zero_init:
            for child in blocks:
                nn.init.zeros_((child.conv3 or child.conv2).weight)
        calm([child.bn1 or child.bn2 for child in blocks])

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, H, W)``, to logits ``(N, num_classes)``."""
        x = self.conv1(x)
        if self.bn1 is not None and self.maxpool is not None:
            x = self.maxpool(self.relu(self.bn1(x)))
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))
        return logits
