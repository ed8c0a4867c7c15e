"""The three equal forms of ResNeXt's block, and the weights of one as those of another (1611.05431, figure 3).

With C branches ``T_i`` of the inner width ``d``, their 1×1 convolutions ``U_i``, 3×3 convolutions ``V_i`` and 1×1
convolutions ``W_i``, and ``r`` for BatchNorm and ReLU:

    (a)  Σ_i W_i ∗ r(V_i ∗ r(U_i ∗ x))                       the branches are added
    (b)  W ∗ concat_i r(V_i ∗ r(U_i ∗ x))                    they are concatenated before one 1×1 convolution
    (c)  W ∗ r(V ∗ r(U ∗ x)),  V in C groups                 one convolution each

    U = [U_1; …; U_C]   V = [V_1; …; V_C]   (by output channels)        W = [W_1, …, W_C]   (by input channels)

A BatchNorm works on each channel by itself, so its parameters are divided as its channels are. The last one stands
behind the sum in all three.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from rexport._errors import WeightsError
from rexport.models.blocks import ResidualBlock, conv1x1, conv3x3
from rexport.models.spec import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from rexport.models.spec import ResNetSpec

__all__ = ["AddedBranches", "Branch", "ConcatenatedBranches", "convert_form"]

_BRANCHED = ("conv1", "bn1", "conv2", "bn2")
_COUNTER = "num_batches_tracked"
# of a tensor within a block: (block's prefix)(branches.N.)?(layer).(what)
_KEY = re.compile(
    r"(?P<block>layer\d+\.\d+\.)(?:branches\.(?P<branch>\d+)\.)?(?P<layer>conv[123]|bn[12])\.(?P<what>\w+)"
)


class Branch(nn.Module):
    """One of the paths through a block: 1×1 and 3×3 convolutions on ``width`` channels, and perhaps the last 1×1."""

    def __init__(self, in_channels: int, width: int, out_channels: int | None, *, strides: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, width, stride=strides[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=strides[1])
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv3 = None if out_channels is None else conv1x1(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``width`` or ``out_channels`` channels."""
        out: Tensor = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return out if self.conv3 is None else self.conv3(out)


class _Branched(ResidualBlock):
    _ends_in_conv3: bool

    def _make_layers(self, spec: ResNetSpec, in_channels: int, width: int, out_channels: int, *, stride: int) -> None:
        strides = spec.strides(stride)
        end = out_channels if self._ends_in_conv3 else None
        self.branches = nn.ModuleList(
            Branch(in_channels, width // spec.cardinality, end, strides=strides) for _ in range(spec.cardinality)
        )
        if not self._ends_in_conv3:
            self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)


class AddedBranches(_Branched):
    """Form (a): every branch gives all output channels, and they are added."""

    _ends_in_conv3 = True

    def _residual(self, x: Tensor) -> Tensor:
        first, *remaining = self.branches
        out: Tensor = first(x)
        for branch in remaining:
            out = out + branch(x)
        result: Tensor = self.bn3(out)
        return result


class ConcatenatedBranches(_Branched):
    """Form (b): the branches' channels are concatenated before the last convolution."""

    _ends_in_conv3 = False

    def _residual(self, x: Tensor) -> Tensor:
        out = torch.cat([branch(x) for branch in self.branches], dim=1)
        result: Tensor = self.bn3(self.conv3(out))
        return result


def convert_form(state: Mapping[str, Tensor], to: Form, *, cardinality: int) -> dict[str, Tensor]:
    """Return a ResNeXt's weights, in whatever form they are, as those of another form.

    Args:
        state: A state dict with torchvision's names, in form (a), (b) or (c).
        to: The form to convert to.
        cardinality: The branches of every block.

    Raises:
        WeightsError: A block has another number of branches, or its channels can't be divided among them.

    Example:
        >>> from rexport.models import resnext
        >>> a = resnext(depth=29, stages=3, cardinality=2, form=Form.A)
        >>> c = resnext(depth=29, stages=3, cardinality=2)
        >>> c.load_state_dict(convert_form(a.state_dict(), Form.C, cardinality=2))
        <All keys matched successfully>
    """
    merged = _merge(state, cardinality)
    return merged if to is Form.C else _split(merged, to, cardinality)


def _merge(state: Mapping[str, Tensor], cardinality: int) -> dict[str, Tensor]:
    """Return the weights in form (c)."""
    branches: dict[str, list[Tensor]] = {}
    merged: dict[str, Tensor] = {}
    for key, tensor in state.items():
        match = _KEY.fullmatch(key)
        if match is None or match["branch"] is None:
            merged[key] = tensor
            continue
        name = f"{match['block']}{match['layer']}.{match['what']}"
        parts = branches.setdefault(name, [])
        if int(match["branch"]) != len(parts):
            raise WeightsError(f"{key} is not in the order of its branches.")
        parts.append(tensor)
        merged[name] = tensor  # holds the place until all parts are known
    for name, parts in branches.items():
        if len(parts) != cardinality:
            raise WeightsError(f"{name} has {len(parts)} branches, and the network {cardinality}.")
        merged[name] = parts[0] if name.endswith(_COUNTER) else torch.cat(parts, dim=_axis(name))
    return merged


def _split(state: Mapping[str, Tensor], to: Form, cardinality: int) -> dict[str, Tensor]:
    """Return weights of form (c) in form (a) or (b)."""
    layers = (*_BRANCHED, "conv3") if to is Form.A else _BRANCHED
    split: dict[str, Tensor] = {}
    for key, tensor in state.items():
        match = _KEY.fullmatch(key)
        if match is None or match["layer"] not in layers:
            split[key] = tensor
            continue
        for index in range(cardinality):
            split[f"{match['block']}branches.{index}.{match['layer']}.{match['what']}"] = _part(
                tensor, key, index, cardinality
            )
    return split


def _part(tensor: Tensor, key: str, index: int, cardinality: int) -> Tensor:
    if key.endswith(_COUNTER):
        return tensor.clone()
    axis = _axis(key)
    if tensor.shape[axis] % cardinality:
        raise WeightsError(f"{key} has {tensor.shape[axis]} channels, which {cardinality} branches can't share.")
    return tensor.chunk(cardinality, dim=axis)[index].clone()


def _axis(key: str) -> int:
    return 1 if ".conv3." in key else 0
