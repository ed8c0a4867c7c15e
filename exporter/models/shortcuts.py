"""The shortcuts, which join a block's input to its result.

    option A    every second row and column, and zeros for the new channels (no weights)
    option B/C  BN(Wₛ ∗ x), with a 1×1 convolution
    scaled      x/2 + F(x)/2                                1603.05027, section 3.1
    gated       (1 − g(x)) x + g(x) F(x)                    "exclusive gating", section 3.1, as highway networks have it
    shortcut_gated   (1 − g(x)) x + F(x)                    "shortcut-only gating"
    dropout     x with half of it dropped, + F(x)           section 3.1

with g(x) = σ(W ∗ x + b), a 1×1 convolution whose bias starts at −6: the setting that failed least there.

He et al. 2015, arXiv:1512.03385, section 4.1; He et al. 2016, arXiv:1603.05027, table 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from rexport.models.spec import Downsample, Shortcut

if TYPE_CHECKING:
    from torch import Tensor

    from rexport.models.spec import ResNetSpec

__all__ = ["DropoutJoin", "GatedJoin", "PadShortcut", "ScaledJoin", "join_of", "shortcut_of"]

_GATE_BIAS = -6.0


class PadShortcut(nn.Module):
    """Option A's shortcut: leave out rows and columns by the stride, and pad channels with zeros.

    The paper does not say where the zeros go. Half stand before the input's channels and half after, as
    ``pytorch_resnet_cifar10`` has it: trained weights depend on it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, larger by an even number.
        stride: The step between the rows and columns that are taken.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 2) -> None:
        super().__init__()
        self.padding = (out_channels - in_channels) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class ScaledJoin(nn.Module):
    """Half the shortcut and half the residual."""

    def forward(self, x: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:  # noqa: ARG002
        """Join ``shortcut`` and ``residual``, both of the block's output shape."""
        return shortcut * 0.5 + residual * 0.5


class DropoutJoin(nn.Module):
    """The shortcut with half of it dropped in training; at inference, plain addition."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:  # noqa: ARG002
        """Join ``shortcut`` and ``residual``, both of the block's output shape."""
        joined: Tensor = self.drop(shortcut) + residual
        return joined


class GatedJoin(nn.Module):
    """A gate computed from the block's input.

    Args:
        in_channels: Channels of the block's input.
        out_channels: Channels of its output.
        stride: The block's.
        exclusive: Whether the gate closes the residual as it opens the shortcut; otherwise the residual stays.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, exclusive: bool) -> None:
        super().__init__()
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        nn.init.constant_(self.gate.bias, _GATE_BIAS)  # type: ignore[arg-type]
        self.exclusive = exclusive

    def forward(self, x: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:
        """Join ``shortcut`` and ``residual``, both of the block's output shape, as ``x`` says."""
        gate = torch.sigmoid(self.gate(x))
        return (1 - gate) * shortcut + (gate * residual if self.exclusive else residual)


def shortcut_of(spec: ResNetSpec, in_channels: int, out_channels: int, *, stride: int) -> nn.Module | None:
    """Return the way round a block, ``None`` where that is the identity (or where there is none)."""
    same_shape = stride == 1 and in_channels == out_channels
    if spec.shortcut is Shortcut.NONE or (same_shape and spec.shortcut is not Shortcut.C):
        return None
    if spec.shortcut in (Shortcut.B, Shortcut.C):
        return _projection(spec, in_channels, out_channels, stride=stride)
    return PadShortcut(in_channels, out_channels, stride=stride)


def join_of(spec: ResNetSpec, in_channels: int, out_channels: int, *, stride: int) -> nn.Module | None:
    """Return what joins the two ways, ``None`` where they are added."""
    match spec.shortcut:
        case Shortcut.SCALED:
            return ScaledJoin()
        case Shortcut.DROPOUT:
            return DropoutJoin()
        case Shortcut.GATED | Shortcut.SHORTCUT_GATED:
            exclusive = spec.shortcut is Shortcut.GATED
            return GatedJoin(in_channels, out_channels, stride=stride, exclusive=exclusive)
    return None


def _projection(spec: ResNetSpec, in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """Return a projection, under the names that torchvision, and timm for ResNet-D, give to its parts."""
    pools = spec.downsample is Downsample.POOL
    parts: list[nn.Module] = []
    if pools:
        # timm has the Identity too, so that the convolution is downsample.1 in every stage
        pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        parts.append(pool)
    parts.append(nn.Conv2d(in_channels, out_channels, 1, stride=1 if pools else stride, bias=False))
    if not spec.pre_activation:  # there, the sum must reach the next block as it is
        parts.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*parts)
