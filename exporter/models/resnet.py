"""Networks with BatchNorm and ReLU after each convolution: ResNet, ResNeXt, wide, and plain ones.

State-dict names are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1`` …, ``downsample.0``, ``fc``), with three
stages alike; those of the deep stem are timm's. With torchvision's weights, outputs are torchvision's bit for bit.
Weights of the public ``pytorch_resnet_cifar10`` fit once its head, ``linear``, is called ``fc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

from rexport.models.blocks import BasicBlock, Bottleneck, ResidualBlock, conv3x3
from rexport.models.resnext_forms import AddedBranches, ConcatenatedBranches
from rexport.models.spec import Block, Form, Stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rexport.models.spec import ResNetSpec


class _MakesBlocks(Protocol):
    """A block's class, or a function in its place."""

    def __call__(
        self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int
    ) -> nn.Module: ...


__all__ = ["ResNet", "calm", "he_init", "stages_of", "stem_of"]

_MANY_BLOCKS = 100  # float32 holds 2**127, the square root of 254 doublings of the variance
_BOTTLENECKS: dict[Form, type[ResidualBlock]] = {
    Form.A: AddedBranches,
    Form.B: ConcatenatedBranches,
    Form.C: Bottleneck,
}


class ResNet(nn.Module):
    """A stem, three or four stages of blocks, average pooling and a linear head.

    Args:
        spec: What it is made of.

    Example:
        >>> from rexport.models.spec import Block, ResNetSpec
        >>> ResNet(ResNetSpec(depth=18, block=Block.BASIC)).fc
        Linear(in_features=512, out_features=1000, bias=True)
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.conv1 = stem_of(spec)
        self.bn1 = nn.BatchNorm2d(spec.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if spec.stem is Stem.CONV3 else nn.MaxPool2d(3, stride=2, padding=1)
        block = BasicBlock if spec.block is Block.BASIC else _BOTTLENECKS[spec.form]
        for index, stage in enumerate(stages_of(spec, block)):
            self.add_module(f"layer{index + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(spec.outputs[-1], spec.num_classes)
        self.stages = spec.stages
        he_init(self)
        norms = [getattr(child, child.last_norm) for child in self.modules() if isinstance(child, ResidualBlock)]
        if spec.zero_init:
            for norm in norms:
                nn.init.zeros_(norm.weight)
        calm(norms)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, H, W)``, to logits ``(N, num_classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def stem_of(spec: ResNetSpec) -> nn.Module:
    """Return the stem's convolution, or convolutions."""
    width = spec.stem_width
    match spec.stem:
        case Stem.CONV3:
            return conv3x3(3, width)
        case Stem.CONV7:
            return nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        case Stem.DEEP:
            half = width // 2
            return nn.Sequential(
                conv3x3(3, half, stride=2),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
                conv3x3(half, half),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
                conv3x3(half, width),
            )


def stages_of(spec: ResNetSpec, block: _MakesBlocks) -> list[nn.Sequential]:
    """Return the stages; the first block of each but the first halves the map."""
    stages, in_channels = [], spec.stem_width
    for index, (count, width, out_channels) in enumerate(zip(spec.layers, spec.widths, spec.outputs, strict=True)):
        blocks = []
        for position in range(count):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(spec, in_channels, width, out_channels, stride=stride))
            in_channels = out_channels
        stages.append(nn.Sequential(*blocks))
    return stages


def calm(norms: Sequence[nn.BatchNorm2d]) -> None:
    """Keep an untrained network of very many blocks finite.

    Before training, each block adds as much variance as comes in, and hundreds of doublings overflow float32. With L
    blocks, the running variances of ``norms`` (one a block) start at L, so that each adds 1/L of it. In training,
    batches have their own statistics, and these are overwritten.
    """
    if len(norms) > _MANY_BLOCKS:
        for norm in norms:
            assert norm.running_var is not None
            norm.running_var.fill_(len(norms))


def he_init(module: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_out), from PyTorch's global generator.

    He, Zhang, Ren, Sun 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, section 2.2: equation 14,
    which keeps the gradients' variance (fan_in, equation 10, the signals'), as torchvision does.
    """
    for child in module.modules():
        # drawing nothing for the meta device still costs seconds: it imports a compiler
        if isinstance(child, nn.Conv2d) and not child.weight.is_meta:
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
