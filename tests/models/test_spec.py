from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from rexport import models
from rexport._errors import UsageError
from rexport.models import Block, Family, Form, ResNetSpec, Shortcut, Stem


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"depth": 51}, r"depth must be 12n \+ 2, or 50, 101, 152, 200, and not 51: the nearest are 50 and"),
        ({"depth": 21, "block": Block.BASIC, "stages": 3}, r"must be 6n \+ 2, and not 21: the nearest are 20 and 26"),
        ({"depth": 21, "stages": 3}, r"9n \+ 2, and not 21: the nearest are 20 and 29"),
        ({"depth": 2, "stages": 3, "block": Block.BASIC}, r"6n \+ 2, and not 2: the nearest are 8 and 14"),
        ({"depth": 0}, "depth is a number from 1"),
        ({"depth": 50, "stages": 5}, "4 stages, as for ImageNet, or 3, as for CIFAR; not 5"),
        ({"depth": 18, "block": Block.BASIC, "cardinality": 32}, r"A basic block has no groups .* block=bottleneck"),
        ({"depth": 18, "block": Block.BASIC, "expansion": 4}, "its expansion is 1, not 4"),
        ({"depth": 50, "expansion": 0.001}, "makes 0.064 of 64 channels: no whole number"),
        ({"depth": 50, "base_width": 3, "expansion": 0.5}, "makes 1.5 of 3 channels"),
        ({"depth": 50, "cardinality": 0}, "cardinality is a number from 1"),
        ({"depth": 50, "base_width": 10**9}, "base_width is a number from 1 to 65,536"),
        ({"depth": 50, "form": Form.A}, "needs a cardinality above 1"),
        ({"depth": 50, "form": Form.B, "cardinality": 2, "pre_activation": True}, "no pre-activation"),
        ({"depth": 50, "shortcut": Shortcut.GATED, "pre_activation": True}, "without pre-activation"),
        (
            {"depth": 20, "block": Block.BASIC, "stages": 3, "stem_width": 63, "shortcut": Shortcut.A},
            "63 to 64 channels",
        ),
        ({"depth": 18, "block": Block.BASIC, "stem": Stem.DEEP, "stem_width": 65}, "65 is odd"),
        ({"depth": 50, "input_size": 31}, "down to 1/32: pictures of 31 pixels are too small"),
        ({"depth": 50, "num_classes": 0}, "num_classes is a number from 1"),
    ],
)
def test_an_impossible_network_is_refused_with_the_rule(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        ResNetSpec(**options)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("resnet[depth=50,cardinality=3,width=128]", "128 can't be divided into 3 groups: cardinality must divide it"),
        ("resnext[depth=50,width=128,base_width=4]", "the same in two ways"),
        ("resnext[cardinality=8]", r"needs its depth, such as resnext\[depth=50\]"),
        ("resnext[depth=50,cardinalty=8]", "no option 'cardinalty'; did you mean cardinality"),
        ("resnext[depth=fifty]", "depth=fifty is not a whole number"),
        ("resnext[depth=50,expansion=nan]", "expansion=nan is not a number"),
        ("resnext[depth=50,expansion=inf]", "expansion=inf is not a number"),
        ("resnext[depth=50,shortcut=D]", "shortcut=D is none of none, A, B, C"),
        ("resnext[depth=50,zero_init=yes]", "neither true nor false"),
        ("resnext[depth]", "'depth' in .* is not of the form name=value"),
        ("resnext[depth=50,depth=101]", "says depth twice"),
        ("inception[depth=50]", "no family 'inception'; what comes before the brackets is resnet, plain"),
    ],
)
def test_a_spec_that_can_not_be_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        models.find(text)


def test_no_brackets_are_no_spec() -> None:
    assert models.parse_spec("resnet50") is None
    assert models.parse_spec("resnet[depth=50") is None


def test_spaces_do_not_matter() -> None:
    assert models.find("resnet[ depth = 50 , cardinality=2]").name == "resnet[depth=50,cardinality=2]"


@pytest.mark.slow
def test_a_named_network_is_its_spec() -> None:
    for name, spec in (
        ("resnet50", "resnet[depth=50]"),
        ("cifar_resnet20", "resnet[depth=20,stages=3]"),
        ("cifar_plain20", "plain[depth=20,stages=3]"),
        ("resnext101_64x4d", "resnext[depth=101,cardinality=64]"),
        ("resnext50_32x4d", "resnext[depth=50,width=128]"),
        ("wide_resnet50_2", "resnet[depth=50,base_width=128]"),
        ("cifar_resnext29_8x64d", "resnext[depth=29,stages=3]"),
        ("resnet50d", "resnet[depth=50,stem=deep,downsample=pool]"),
        ("cifar_preact_resnet164", "preact_resnet[depth=164,stages=3,block=bottleneck]"),
    ):
        assert _shapes(name) == _shapes(spec), name


@st.composite
def _specs(draw: st.DrawFn) -> tuple[Family, dict[str, Any]]:
    family = draw(st.sampled_from(list(Family)))
    stages = draw(st.sampled_from([3, 4]))
    options: dict[str, Any] = {"stages": stages, "num_classes": 3}
    bottleneck = family is Family.RESNEXT or draw(st.booleans())
    options["block"] = Block.BOTTLENECK if bottleneck else Block.BASIC
    options["depth"] = stages * (3 if bottleneck else 2) * draw(st.integers(1, 2)) + 2
    options["stem_width"] = draw(st.sampled_from([4, 8]))
    options["stem"] = draw(st.sampled_from(list(Stem)))
    options["downsample"] = draw(st.sampled_from(["conv", "pool"]))
    options["stride"] = draw(st.sampled_from(["1x1", "3x3"]))
    options["input_size"] = 32
    if bottleneck:
        options["cardinality"] = draw(st.sampled_from([1, 2, 4] if family is not Family.RESNEXT else [2, 4]))
        options["base_width"] = draw(st.integers(1, 3))
        options["expansion"] = draw(st.sampled_from([None, 2, 4]))
        options = {name: value for name, value in options.items() if value is not None}
        if family in (Family.RESNET, Family.RESNEXT) and options["cardinality"] > 1:
            options["form"] = draw(st.sampled_from(list(Form)))
    if family is not Family.PLAIN:
        known = list(Shortcut) if family is not Family.PREACT_RESNET else [Shortcut.B, Shortcut.C, Shortcut.NONE]
        options["shortcut"] = draw(st.sampled_from(known))
    return family, options


@pytest.mark.slow
@settings(max_examples=30)
@given(_specs())
def test_whatever_is_not_refused_can_be_built_and_run(drawn: tuple[Family, dict[str, Any]]) -> None:
    family, options = drawn
    try:
        spec = models.spec_of(family, **options)
    except UsageError as error:
        assume("shortcut=" not in str(error))  # option A can't take channels away
        raise  # all else was chosen to fit
    network = models.families.construct(spec).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    convolutions = [
        name
        for name, child in network.named_modules()
        if isinstance(child, nn.Conv2d) and not {"downsample", "gate"} & set(name.split("."))
    ]
    if spec.form is Form.C and spec.stem is not Stem.DEEP:
        assert len(convolutions) + 1 == spec.depth


def _shapes(name: str) -> list[tuple[str, torch.Size]]:
    network = models.find(name)
    with torch.device("meta"):
        module = network.construct(network.num_classes)
    return [(key, tensor.shape) for key, tensor in module.state_dict().items()]
