"""The networks that have a name: those of the papers' tables, and any depth of the CIFAR families.

ResNet, plain: arXiv:1512.03385, tables 1 and 6. Pre-activation: arXiv:1603.05027, tables 4 and 5. ResNeXt:
arXiv:1611.05431, tables 3, 4 and 7. Wide: arXiv:1605.07146, table 8. ResNet-D: arXiv:1812.01187, table 5. VGG-19:
arXiv:1409.1556, table 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch

from rexport._errors import UsageError
from rexport.models.families import Family, construct, spec_of
from rexport.models.spec import Block, Downsample, ResNetSpec, Stem
from rexport.models.summary import Summary, summarize
from rexport.models.vgg import Vgg

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from rexport.preprocessing import Preprocessing

__all__ = ["NETWORKS", "Network", "cifar_network", "from_spec"]

_PAPERS = {
    Family.RESNET: "ResNet (1512.03385)",
    Family.PLAIN: "ResNet (1512.03385)",
    Family.PREACT_RESNET: "Identity mappings (1603.05027)",
    Family.RESNEXT: "ResNeXt (1611.05431)",
}
_WIDE = "Wide ResNet (1605.07146)"
_RESNET_D = "ResNet-D (1812.01187)"
_CIFAR_NAME = re.compile(r"cifar_(resnet|plain|preact_resnet)(\d{1,4})")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that can be built.

    Attributes:
        name: As on the command line, such as ``resnext50_32x4d``.
        depth: Layers with weights, projections not counted; ``None`` where it is not known.
        paper: Its title in short and its number on arXiv.
        dataset: What its paper trains it on; ``None`` where that is not known.
        input_size: Height and width of its input there, in pixels.
        num_classes: Classes of that dataset; ``None`` where only the network itself knows.
        construct: Makes the module, with freshly drawn weights, for a number of classes; for ``None``, with its own
            number.
        members: The networks of an ensemble, in order.
        preprocessing: How its library prepares pictures for it; ``None`` if it is not known.
        inexpressible: Why its library's preprocessing can't be expressed, as a sentence; empty if it can.
        assumed_size: Whether ``input_size`` is only the usual one.
        weights: The published weights that its name stands for, by their reference or as a file; ``None`` if it stands
            for none.
        classes: The names of the outputs of these weights; empty if they are not known.
        no_classifier: Why no file can hold all of it, and what to export instead, as a sentence; empty if one can.
    """

    name: str
    depth: int | None
    paper: str
    dataset: Literal["imagenet", "cifar10"] | None
    input_size: int
    num_classes: int | None
    construct: Callable[[int | None], nn.Module] = field(repr=False, compare=False)
    members: tuple[Network, ...] = ()
    preprocessing: Preprocessing | None = None
    inexpressible: str = ""
    assumed_size: bool = False
    weights: str | None = None
    classes: tuple[str, ...] = ()
    no_classifier: str = ""

    def summary(self) -> Summary:
        """Count parameters and multiply-accumulates at the network's own input size, in milliseconds."""
        with torch.device("meta"):
            return summarize(self.construct(self.num_classes), self.input_size)


def from_spec(name: str, family: Family, spec: ResNetSpec, *, paper: str | None = None) -> Network:
    """Return the network that a spec describes, under a name."""
    return Network(
        name=name,
        depth=spec.depth,
        paper=paper or _PAPERS[family],
        dataset={(4, 1000): "imagenet", (3, 10): "cifar10"}.get((spec.stages, spec.num_classes)),  # type: ignore[arg-type]
        input_size=spec.input_size,
        num_classes=spec.num_classes,
        construct=lambda num_classes: construct(replace(spec, num_classes=num_classes or spec.num_classes)),
    )


def cifar_network(name: str) -> Network | None:
    """Return a CIFAR network of any depth by its name, such as ``cifar_plain26``; ``None`` for other names.

    Raises:
        UsageError: There is no such depth.
    """
    match = _CIFAR_NAME.fullmatch(name)
    if match is None:
        return None
    family, depth = Family(match[1]), int(match[2])
    block = Block.BASIC
    if family is Family.PREACT_RESNET and depth % 6 != 2 and depth % 9 == 2:
        block = Block.BOTTLENECK
    return _cifar(family, depth, block=block)


def _cifar(family: Family, depth: int, *, block: Block = Block.BASIC) -> Network:
    name = f"cifar_{family}{depth}"
    try:
        return from_spec(name, family, spec_of(family, depth=depth, stages=3, block=block))
    except UsageError as error:
        raise UsageError(f"There is no network {name}. {error}") from error


def _imagenet(family: Family, *depths: int) -> list[Network]:
    return [from_spec(f"{family}{depth}", family, spec_of(family, depth=depth)) for depth in depths]


def _resnext(depth: int, cardinality: int, width: int, *, stages: int = 4) -> Network:
    spec = spec_of(Family.RESNEXT, depth=depth, cardinality=cardinality, base_width=width, stages=stages)
    prefix = "cifar_" if stages == 3 else ""
    return from_spec(f"{prefix}resnext{depth}_{cardinality}x{width}d", Family.RESNEXT, spec)


def _wide(depth: int) -> Network:
    spec = spec_of(Family.RESNET, depth=depth, base_width=128)
    return from_spec(f"wide_resnet{depth}_2", Family.RESNET, spec, paper=_WIDE)


def _resnet_d(depth: int) -> Network:
    spec = spec_of(Family.RESNET, depth=depth, stem=Stem.DEEP, downsample=Downsample.POOL)
    return from_spec(f"resnet{depth}d", Family.RESNET, spec, paper=_RESNET_D)


_VGG19 = Network(
    name="vgg19",
    depth=19,
    paper="VGG (1409.1556)",
    dataset="imagenet",
    input_size=224,
    num_classes=1000,
    construct=lambda num_classes: Vgg(num_classes or 1000),
)

NETWORKS: tuple[Network, ...] = (
    *_imagenet(Family.RESNET, 18, 34, 50, 101, 152),
    *_imagenet(Family.PLAIN, 18, 34),
    *_imagenet(Family.PREACT_RESNET, 18, 34, 50, 101, 152, 200),
    _resnext(50, 32, 4),
    _resnext(101, 32, 4),
    _resnext(101, 32, 8),
    _resnext(101, 64, 4),
    _wide(50),
    _wide(101),
    _resnet_d(50),
    _VGG19,
    *(_cifar(Family.RESNET, depth) for depth in (20, 32, 44, 56, 110, 1202)),
    *(_cifar(Family.PLAIN, depth) for depth in (20, 32, 44, 56)),
    *(_cifar(Family.PREACT_RESNET, depth) for depth in (20, 110)),
    *(_cifar(Family.PREACT_RESNET, depth, block=Block.BOTTLENECK) for depth in (164, 1001)),
    _resnext(29, 8, 64, stages=3),
    _resnext(29, 16, 64, stages=3),
)
