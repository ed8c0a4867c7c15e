"""What a residual network is made of, as data: every network of the papers, and those between.

A network is a stem, stages of equal blocks, and a head. From stage to stage the map halves and the channels double:

    stage i (from 0)    inner width  cardinality · base_width · 2ⁱ    output  that · expansion

With the expansion left out, the output is the papers': 256 · 2ⁱ channels for bottlenecks behind a stem of 64, 64 · 2ⁱ
behind one of 16, and the inner width for basic blocks.

    depth    4 stages: 18 = (2, 2, 2, 2), 34 = (3, 4, 6, 3) basic blocks, 50 = (3, 4, 6, 3), 101 = (3, 4, 23, 3),
             152 = (3, 8, 36, 3), 200 = (3, 24, 36, 3) bottlenecks, or the same number n of blocks in each stage
             3 stages: 6n + 2 with basic blocks, 9n + 2 with bottlenecks

ResNet and plain networks: He et al. 2015, arXiv:1512.03385. Pre-activation: He et al. 2016, arXiv:1603.05027.
ResNeXt: Xie et al. 2016, arXiv:1611.05431. Wide: Zagoruyko & Komodakis 2016, arXiv:1605.07146. The deep stem and the
pooling projection (ResNet-D): He et al. 2018, arXiv:1812.01187.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from rexport._errors import UsageError

__all__ = ["Block", "Downsample", "Form", "ResNetSpec", "Shortcut", "Stem", "Stride"]


class Block(StrEnum):
    """Two 3×3 convolutions, or 1×1, 3×3 and 1×1."""

    BASIC = "basic"
    BOTTLENECK = "bottleneck"


class Stem(StrEnum):
    """What comes before the first stage: ResNet's, CIFAR's, or ResNet-D's three 3×3 convolutions."""

    CONV7 = "7x7"
    CONV3 = "3x3"
    DEEP = "deep"


class Shortcut(StrEnum):
    """What joins the input to a block's result.

    ``none`` makes the network plain. ``A``, ``B`` and ``C`` are the options of 1512.03385, section 4.1: zero-padded
    identity, projection where the shape changes, projection everywhere. The others are those of 1603.05027, table 1,
    each over option A; its "1×1 conv shortcut" is ``C``.
    """

    NONE = "none"
    A = "A"
    B = "B"
    C = "C"
    SCALED = "scaled"
    GATED = "gated"
    SHORTCUT_GATED = "shortcut_gated"
    DROPOUT = "dropout"


class Stride(StrEnum):
    """Which convolution of a bottleneck halves the map: the paper's first 1×1 ("v1"), or the 3×3 ("v1.5")."""

    CONV1 = "1x1"
    CONV3 = "3x3"


class Downsample(StrEnum):
    """How a projection halves the map: by its convolution's stride, or by average pooling before it (ResNet-D)."""

    CONV = "conv"
    POOL = "pool"


class Form(StrEnum):
    """The three equal forms of ResNeXt's block (1611.05431, figure 3): branches added, concatenated, or grouped."""

    A = "a"
    B = "b"
    C = "c"


_LAYOUTS = {
    (Block.BASIC, 18): (2, 2, 2, 2),
    (Block.BASIC, 34): (3, 4, 6, 3),
    (Block.BOTTLENECK, 50): (3, 4, 6, 3),
    (Block.BOTTLENECK, 101): (3, 4, 23, 3),
    (Block.BOTTLENECK, 152): (3, 8, 36, 3),
    (Block.BOTTLENECK, 200): (3, 24, 36, 3),
}
_CONVOLUTIONS = {Block.BASIC: 2, Block.BOTTLENECK: 3}
_STAGES = (3, 4)
_LARGEST = 2**16  # of any number: beyond it, a slip of the keyboard would fill the memory


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """One residual or plain network.

    Attributes:
        depth: Layers with weights on the longest way, projections not counted.
        stages: 4 as for ImageNet, or 3 as for CIFAR.
        block: Of which blocks.
        cardinality: Groups of a bottleneck's 3×3 convolution.
        base_width: Channels of a group in the first stage.
        expansion: A block's output over its inner width; ``None`` for the papers' outputs.
        stem: What comes first.
        stem_width: Its channels.
        shortcut: What joins a block's input to its result.
        stride: Which convolution of a bottleneck has the stride.
        downsample: How a projection halves the map.
        pre_activation: Whether BatchNorm and ReLU come before each convolution (1603.05027) and not after.
        form: How bottlenecks with a cardinality are written down; all three compute the same.
        zero_init: Whether every block begins as the identity: its last BatchNorm (in pre-activation blocks its last
            convolution) starts at zero (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        input_size: Height and width of its pictures, in pixels.
        num_classes: Outputs of its head.

    Raises:
        UsageError: There is no such network; the message has the rule that is broken.

    Example:
        >>> ResNetSpec(depth=50).layers
        (3, 4, 6, 3)
        >>> ResNetSpec(depth=29, stages=3, block=Block.BOTTLENECK, cardinality=8, base_width=4, expansion=2).outputs
        (64, 128, 256)
    """

    depth: int
    stages: int = 4
    block: Block = Block.BOTTLENECK
    cardinality: int = 1
    base_width: int = 64
    expansion: float | None = None
    stem: Stem = Stem.CONV7
    stem_width: int = 64
    shortcut: Shortcut = Shortcut.B
    stride: Stride = Stride.CONV3
    downsample: Downsample = Downsample.CONV
    pre_activation: bool = False
    form: Form = Form.C
    zero_init: bool = False
    input_size: int = 224
    num_classes: int = 1000

    def __post_init__(self) -> None:
        for name in ("depth", "cardinality", "base_width", "stem_width", "input_size", "num_classes"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise UsageError(f"{name} is a number from 1 to {_LARGEST:,}, and not {getattr(self, name)}.")
        if self.stages not in _STAGES:
            raise UsageError(f"A network has 4 stages, as for ImageNet, or 3, as for CIFAR; not {self.stages}.")
        refusal = self._why_no_layout() or self._why_no_block() or self._why_no_shortcut() or self._why_no_stem()
        if refusal:
            raise UsageError(refusal)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """How many blocks each stage has."""
        if self.stages == 4 and (self.block, self.depth) in _LAYOUTS:
            return _LAYOUTS[self.block, self.depth]
        return ((self.depth - 2) // (self.stages * _CONVOLUTIONS[self.block]),) * self.stages

    @property
    def widths(self) -> tuple[int, ...]:
        """The inner width of each stage."""
        return tuple(self.cardinality * self.base_width * 2**stage for stage in range(self.stages))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The channels that come out of each stage."""
        return tuple(int(self._first_output() * 2**stage) for stage in range(self.stages))

    @property
    def grouped(self) -> bool:
        """Whether its bottlenecks have groups."""
        return self.cardinality > 1

    def strides(self, stride: int) -> tuple[int, int]:
        """Return the strides of the first 1×1 and of the 3×3 convolution of a bottleneck with this ``stride``.

        The paper strides the 1×1, which then never sees three quarters of its input. All public weights stride the 3×3
        ("v1.5", Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        """
        return (stride, 1) if self.stride is Stride.CONV1 else (1, stride)

    def _first_output(self) -> float:
        if self.expansion is not None:
            return self.widths[0] * self.expansion
        return self.widths[0] if self.block is Block.BASIC else 4 * self.stem_width

    def _why_no_layout(self) -> str | None:
        per_block = _CONVOLUTIONS[self.block]
        if self.stages == 4 and (self.block, self.depth) in _LAYOUTS:
            return None
        period = self.stages * per_block
        if self.depth >= period + 2 and self.depth % period == 2:
            return None
        below = max(period + 2, self.depth - (self.depth - 2) % period)
        depths = [depth for block, depth in _LAYOUTS if block is self.block and self.stages == 4]
        rule = ", or ".join(filter(None, [f"{period}n + 2", ", ".join(map(str, depths))]))
        near = sorted(sorted({below, below + period, *depths}, key=lambda depth: abs(depth - self.depth))[:2])
        return (
            f"With {self.stages} stages of {self.block} blocks the depth must be {rule}, and not {self.depth}: "
            f"the nearest are {near[0]} and {near[1]}."
        )

    def _why_no_block(self) -> str | None:
        if self.block is Block.BASIC:
            if self.grouped:
                return "A basic block has no groups (1611.05431, section 3.3); a cardinality needs block=bottleneck."
            if self.expansion not in (None, 1):
                return f"A basic block gives as many channels as it works on: its expansion is 1, not {self.expansion}."
        output = self._first_output()
        if output < 1 or output != int(output):
            return f"expansion={self.expansion} makes {output:g} of {self.widths[0]} channels: no whole number."
        if self.form is not Form.C and (not self.grouped or self.pre_activation):
            return f"form={self.form} is one of ResNeXt's block: it needs a cardinality above 1, and no pre-activation."
        return None

    def _why_no_shortcut(self) -> str | None:
        if self.pre_activation and self.shortcut not in (Shortcut.NONE, Shortcut.A, Shortcut.B, Shortcut.C):
            return f"shortcut={self.shortcut} is a variant of the blocks without pre-activation (1603.05027, table 1)."
        if self.shortcut in (Shortcut.NONE, Shortcut.B, Shortcut.C):
            return None
        steps = zip((self.stem_width, *self.outputs), self.outputs, strict=False)
        for before, after in steps:
            if after < before or (after - before) % 2:
                return (
                    f"shortcut={self.shortcut} pads half the new channels on either side, which can't be done from "
                    f"{before} to {after} channels; choose another width or shortcut=B."
                )
        return None

    def _why_no_stem(self) -> str | None:
        if self.stem is Stem.DEEP and self.stem_width % 2:
            return f"The deep stem has half of its width in its first two layers: {self.stem_width} is odd."
        reduction_of_stem = 1 if self.stem is Stem.CONV3 else 4
        smallest = 2 ** (self.stages - 1) * reduction_of_stem
        if self.input_size < smallest:
            return (
                f"The network halves its maps down to 1/{smallest}: pictures of {self.input_size} pixels are too small."
            )
        return None
