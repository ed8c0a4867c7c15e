"""The families of the papers: each has its paper's defaults, so that a few numbers describe a network.

    resnext(depth=29, stages=3, cardinality=8, base_width=4, expansion=2, stem_width=64)

is the same network as the text ``resnext[depth=29,stages=3,cardinality=8,base_width=4,expansion=2,stem_width=64]`` on
the command line. Four stages are built as for ImageNet, three as for CIFAR-10.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from rexport._errors import UsageError
from rexport.models.preact_resnet import PreActResNet
from rexport.models.resnet import ResNet
from rexport.models.spec import Block, Downsample, Form, ResNetSpec, Shortcut, Stem, Stride

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Family",
    "SpecOptions",
    "construct",
    "parse_spec",
    "plain",
    "preact_resnet",
    "resnet",
    "resnext",
    "spec_of",
]


class Family(StrEnum):
    """The part of a spec before the brackets."""

    RESNET = "resnet"
    PLAIN = "plain"
    PREACT_RESNET = "preact_resnet"
    RESNEXT = "resnext"


class SpecOptions(TypedDict, total=False):
    """The options of a network: the attributes of :class:`ResNetSpec`, which explains them; enums by value too.

    ``width``, in place of ``base_width``, is the inner width of the first stage, all groups together.
    """

    depth: int
    stages: int
    block: Block | str
    cardinality: int
    base_width: int
    width: int
    expansion: float
    stem: Stem | str
    stem_width: int
    shortcut: Shortcut | str
    stride: Stride | str
    downsample: Downsample | str
    form: Form | str
    zero_init: bool
    input_size: int
    num_classes: int


_ENUMS: dict[str, type[StrEnum]] = {
    "block": Block,
    "stem": Stem,
    "shortcut": Shortcut,
    "stride": Stride,
    "downsample": Downsample,
    "form": Form,
}
_SPEC = re.compile(r"(?P<family>\w+)\[(?P<options>[^\[\]]*)\]")


def resnet(**options: Unpack[SpecOptions]) -> nn.Module:
    """Build a ResNet (or, by ``base_width``, a wide one) as :func:`spec_of` describes it."""
    return construct(spec_of(Family.RESNET, **options))


def plain(**options: Unpack[SpecOptions]) -> nn.Module:
    """Build a network without shortcuts as :func:`spec_of` describes it."""
    return construct(spec_of(Family.PLAIN, **options))


def preact_resnet(**options: Unpack[SpecOptions]) -> nn.Module:
    """Build a pre-activation ResNet as :func:`spec_of` describes it."""
    return construct(spec_of(Family.PREACT_RESNET, **options))


def resnext(**options: Unpack[SpecOptions]) -> nn.Module:
    """Build a ResNeXt as :func:`spec_of` describes it."""
    return construct(spec_of(Family.RESNEXT, **options))


def construct(spec: ResNetSpec) -> nn.Module:
    """Build the network that a spec describes, with freshly drawn weights."""
    return PreActResNet(spec) if spec.pre_activation else ResNet(spec)


def spec_of(family: Family, **options: Unpack[SpecOptions]) -> ResNetSpec:
    """Describe a network of a family by what differs from its paper.

    Left out, ``stages`` is 4; blocks are bottlenecks from depth 50 on and in ResNeXts; CIFAR networks (3 stages) have
    the 3×3 stem, widths 16, 32 and 64 and option-A shortcuts, but ResNeXts there a stem of 64 and projections.

    Raises:
        UsageError: The depth is missing, a name or a value is unknown, or there is no such network.

    Example:
        >>> spec_of(Family.RESNET, depth=20, stages=3).widths
        (16, 32, 64)
        >>> spec_of(Family.RESNEXT, depth=50).outputs
        (256, 512, 1024, 2048)
    """
    names = list(SpecOptions.__annotations__)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
            raise UsageError(f"A {family} has no option {name!r}; {hint}")
    explicit: dict[str, Any] = {name: _converted(name, value) for name, value in options.items()}
    if "depth" not in explicit:
        raise UsageError(f"A {family} needs its depth, such as {family}[depth=50].")
    attributes = _defaults(family, explicit) | explicit
    if "width" in explicit:
        attributes["base_width"] = _base_width(attributes.pop("width"), attributes.get("cardinality", 1), explicit)
    return ResNetSpec(**attributes, pre_activation=family is Family.PREACT_RESNET)


def parse_spec(text: str) -> tuple[Family, ResNetSpec] | None:
    """Read ``family[name=value,...]``; ``None`` if the text does not have that form.

    Raises:
        UsageError: The family is unknown, a part is not ``name=value``, or as for :func:`spec_of`.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        return None
    try:
        family = Family(match["family"])
    except ValueError:
        raise UsageError(
            f"There is no family {match['family']!r}; what comes before the brackets is {', '.join(Family)}."
        ) from None
    options: dict[str, str] = {}
    for part in filter(None, match["options"].split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{part.strip()!r} in {text} is not of the form name=value.")
        if name in options:
            raise UsageError(f"{text} says {name} twice.")
        options[name] = value
    return family, spec_of(family, **options)  # type: ignore[arg-type]  # texts are converted there


def _defaults(family: Family, explicit: dict[str, Any]) -> dict[str, Any]:
    small = explicit.get("stages", 4) == 3
    defaults: dict[str, Any] = {"block": Block.BASIC, "stem_width": 64, "shortcut": Shortcut.B}
    if family is Family.RESNEXT or (not small and explicit["depth"] >= 50):
        defaults["block"] = Block.BOTTLENECK
    if small:
        defaults |= {"stem": Stem.CONV3, "input_size": 32, "num_classes": 10}
    if small and family is not Family.RESNEXT:
        defaults |= {"stem_width": 16, "shortcut": Shortcut.A}
    defaults["base_width"] = explicit.get("stem_width") or defaults["stem_width"]
    if family is Family.RESNEXT:
        defaults |= {"cardinality": 8, "base_width": 64} if small else {"cardinality": 32, "base_width": 4}
    if family is Family.PREACT_RESNET:
        defaults["shortcut"] = Shortcut.B
    if family is Family.PLAIN:
        defaults["shortcut"] = Shortcut.NONE
    return defaults


def _base_width(width: int, cardinality: int, explicit: dict[str, Any]) -> int:
    if "base_width" in explicit:
        raise UsageError("width and base_width say the same in two ways; give one of them.")
    if cardinality < 1 or width % cardinality:
        raise UsageError(f"A width of {width} can't be divided into {cardinality} groups: cardinality must divide it.")
    return width // cardinality


def _converted(name: str, value: Any) -> Any:
    """Return an option's value in its own type."""
    if name in _ENUMS:
        try:
            return _ENUMS[name](value)
        except ValueError:
            raise UsageError(f"{name}={value} is none of {', '.join(_ENUMS[name])}.") from None
    if name == "zero_init":
        if str(value).lower() not in ("true", "false"):
            raise UsageError(f"{name}={value} is neither true nor false.")
        return str(value).lower() == "true"
    kind, kind_in_words = (float, "number") if name == "expansion" else (int, "whole number")
    try:
        number = kind(value)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{name}={value} is not a {kind_in_words}.")


assert set(SpecOptions.__annotations__) - {"width"} == {field.name for field in fields(ResNetSpec)} - {"pre_activation"}
