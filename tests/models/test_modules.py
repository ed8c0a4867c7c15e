"""What others wrap around a network, and what they return from one."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from rexport._errors import UsageError
from rexport.models.modules import picture_channels, results_of, return_one_tensor, returning_all, uncompiled, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None
    hidden: tuple[torch.Tensor, ...] = ()


Pair = namedtuple("Pair", ["logits", "aux"])


class Returning(nn.Module):
    """Returns what ``shape`` makes of the means of the colours and twice that."""

    def __init__(self, shape: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> Any:
        means = x.mean((2, 3))
        return self.shape(means, 2 * means)


def _pair(first: Any, second: Any) -> Any:
    return first, second


SHAPES = {
    "tuple": (lambda a, b: (a, b), ["0", "1"]),
    "list": (lambda a, b: [a, b], ["0", "1"]),
    "dict": (lambda a, b: OrderedDict(out=a, aux=b), ["out", "aux"]),
    "named tuple": (Pair, ["logits", "aux"]),
    "dataclass": (lambda a, b: Output(a, None, (b,)), ["logits", "hidden.0"]),
    "nested": (lambda a, b: {"heads": [a, {"aux": b}], "epoch": 3}, ["heads.0", "heads.1.aux"]),
}


@pytest.mark.parametrize(("shape", "names"), SHAPES.values(), ids=SHAPES)
def test_results_have_names_and_one_is_returned(shape: Callable[[Any, Any], Any], names: list[str]) -> None:
    images = torch.rand(2, 3, 8, 8)
    assert list(results_of(Returning(shape), (3, 8, 8))) == names
    for name, factor in ((None, 1), (names[0], 1), (names[1], 2)):
        network = Returning(shape)
        return_one_tensor(network, name)
        assert torch.equal(network(images), factor * images.mean((2, 3)))
        assert list(results_of(network, (3, 8, 8))) == names  # what there is to choose from stays known


def test_a_choice_holds_whoever_else_wants_one_tensor() -> None:
    network = Returning(_pair)
    return_one_tensor(network)
    return_one_tensor(network, "1")
    images = torch.rand(2, 3, 8, 8)
    with return_one_tensor(network):
        assert torch.equal(network(images), 2 * images.mean((2, 3)))
    assert torch.equal(copy.deepcopy(network)(images), 2 * images.mean((2, 3)))


def test_all_results_come_back_for_a_while() -> None:
    network = Returning(_pair)
    return_one_tensor(network)
    images = torch.rand(2, 3, 8, 8)
    with returning_all(network, ["1", "0"]):
        second, first = network(images)
    assert torch.equal(network(images), first)
    assert torch.equal(second, 2 * first)


def test_a_result_that_there_is_not() -> None:
    network = Returning(_pair)
    return_one_tensor(network, "aux")
    with pytest.raises(UsageError, match="has no result 'aux'; it returns 0, 1"):
        network(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Returning(lambda _a, _b: None), "returns a NoneType without a tensor"),
        (Returning(lambda _a, _b: {"loss": 0.3}), "returns a dict without a tensor"),
        (
            nn.Linear(5, 2),
            r"does not run on a picture of 8×8 pixels with 3 channels \(RuntimeError: mat1.* with --example",
        ),
        (nn.Bilinear(1, 2, 3), r"with 3 channels \(TypeError: .*missing 1 required positional argument"),
    ],
)
def test_networks_that_give_nothing(network: nn.Module, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        results_of(network, (3, 8, 8))


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3)), 1),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)), 4),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 2, 3)), 3),  # that convolution does not read the picture
        (nn.Sequential(nn.Conv2d(6, 2, 3)), 3),  # no picture
        (nn.Linear(8, 8), 3),
    ],
)
def test_the_first_convolution_tells_the_channels_of_pictures(network: nn.Module, channels: int) -> None:
    assert picture_channels(network, (3, 8, 8)) == channels


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda net: nn.DataParallel(torch.compile(net)),
    ],
    ids=["compiled", "data parallel", "averaged", "both"],
)
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = nn.Linear(2, 3)
    inner = unwrapped(wrap(network))
    assert isinstance(inner, nn.Linear)
    assert torch.equal(inner.weight, network.weight)


def test_compiled_parts_get_their_names_back() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(torch.compile(nn.Linear(3, 4))))
    assert "1.0._orig_mod.weight" in network.state_dict()
    assert list(uncompiled(network).state_dict()) == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_told() -> None:
    with pytest.raises(UsageError, match="is a TorchScript program, which can't be exported"):
        unwrapped(torch.jit.script(nn.Linear(2, 3)))
