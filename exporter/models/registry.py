"""The networks that have a name, and how each is built.

The names of ImageNet's 1,000 classes in ``data/imagenet_classes.txt``, one a line in the order of the
outputs, are those of torchvision's pretrained weights (``torchvision.models._meta``, BSD 3-clause);
CIFAR-10's are from Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Literal

import torch

from rexport._errors import UsageError
from rexport.models.cifar import CifarResNet
from rexport.models.resnet import BasicBlock, Bottleneck, ResNet
from rexport.models.summary import Summary, summarize
from rexport.models.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

__all__ = ["Network", "build", "class_names", "find", "networks"]

_RESNET = "ResNet (1512.03385)"
_RESNEXT = "ResNeXt (1611.05431)"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network with a name.

    Attributes:
        name: As on the command line, such as ``resnext50_32x4d``.
        depth: Layers with weights, shortcuts not counted.
        paper: Its title in short and its number on arXiv.
        dataset: What its paper trains it on.
        input_size: Height and width of its input there, in pixels.
        num_classes: Classes of that dataset.
        construct: Makes the module, with freshly drawn weights, for a number of classes.
    """

    name: str
    depth: int
    paper: str
    dataset: Literal["imagenet", "cifar10"]
    input_size: int
    num_classes: int
    construct: Callable[[int], nn.Module] = field(repr=False, compare=False)

    def summary(self) -> Summary:
        """Count parameters and multiply-accumulates at the network's own input size, in milliseconds."""
        with torch.device("meta"):
            return summarize(self.construct(self.num_classes), self.input_size)


def networks() -> tuple[Network, ...]:
    """Return all networks by family and depth."""
    return _NETWORKS


def find(name: str) -> Network:
    """Return the network with this name; ``cifar_resnet`` takes any depth 6n + 2.

    Raises:
        UsageError: There is none; the message has the nearest names.

    Example:
        >>> find("cifar_resnet26").depth
        26
    """
    for network in _NETWORKS:
        if network.name == name:
            return network
    if match := re.fullmatch(r"cifar_resnet(\d{1,4})", name):
        depth = int(match[1])
        if depth >= 8 and depth % 6 == 2:
            return _cifar_resnet(depth)
        below = max(8, depth - (depth - 2) % 6)
        raise UsageError(
            f"There is no network {name}: its depth must be 6n + 2. The nearest are cifar_resnet{below} and "
            f"cifar_resnet{below + 6}."
        )
    names = [network.name for network in _NETWORKS]
    near = [known for known in names if name and known.startswith(name.lower())][:3]
    near = near or difflib.get_close_matches(name.lower(), names, n=3)
    question = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"There is no network {name!r}.{question} `rexport models` lists them all.")


def build(name: str, *, weights: Path | str | None = None, num_classes: int | None = None, seed: int = 0) -> nn.Module:
    """Build a network, ready for inference.

    Args:
        name: As :func:`find` takes it.
        weights: A state dict (see :mod:`rexport.models.weights`); without it, they are drawn from ``seed``.
        num_classes: Outputs of the head; the dataset's own where not given.
        seed: The same seed gives the same weights. PyTorch's global generator is left as it was.

    Returns:
        The module on the CPU, float32, in evaluation mode.

    Raises:
        UsageError: There is no such network, or the number of classes is not positive.
        WeightsError: The weights can't be read or do not fit.

    Example:
        >>> build("cifar_resnet20", num_classes=100).fc.out_features
        100
    """
    network = find(name)
    classes = network.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise UsageError(f"A network has one class or more, and not {classes}.")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would seed the accelerators too, which fork_rng(devices=[]) does not restore
        torch.default_generator.manual_seed(seed)
        module = network.construct(classes)
    if weights is not None:
        load_weights(module, weights)
    return module.eval()


def class_names(dataset: str, num_classes: int) -> tuple[str, ...]:
    """Return the names of a dataset's classes in the order of the outputs, or ``()`` if they are not known.

    They are not known where a network has another number of outputs than its dataset has classes.

    Example:
        >>> class_names("imagenet", 1000)[0], class_names("cifar10", 10)[9], class_names("cifar10", 3)
        ('tench', 'truck', ())
    """
    if (dataset, num_classes) == ("cifar10", 10):
        return _CIFAR10_CLASSES
    if (dataset, num_classes) == ("imagenet", 1000):
        text = resources.files("rexport.models").joinpath("data", "imagenet_classes.txt").read_text("utf-8")
        return tuple(text.splitlines())
    return ()


def _resnet(depth: int, block: type[BasicBlock | Bottleneck], layers: tuple[int, ...]) -> Network:
    return Network(
        name=f"resnet{depth}",
        depth=depth,
        paper=_RESNET,
        dataset="imagenet",
        input_size=224,
        num_classes=1000,
        construct=lambda num_classes: ResNet(block, layers, num_classes=num_classes),
    )


def _resnext(depth: int, layers: tuple[int, ...], cardinality: int, width: int) -> Network:
    return Network(
        name=f"resnext{depth}_{cardinality}x{width}d",
        depth=depth,
        paper=_RESNEXT,
        dataset="imagenet",
        input_size=224,
        num_classes=1000,
        construct=lambda num_classes: ResNet(
            Bottleneck, layers, num_classes=num_classes, groups=cardinality, width_per_group=width
        ),
    )


def _cifar_resnet(depth: int) -> Network:
    return Network(
        name=f"cifar_resnet{depth}",
        depth=depth,
        paper=_RESNET,
        dataset="cifar10",
        input_size=32,
        num_classes=10,
        construct=lambda num_classes: CifarResNet(depth, num_classes),
    )


_NETWORKS = (
    _resnet(18, BasicBlock, (2, 2, 2, 2)),
    _resnet(34, BasicBlock, (3, 4, 6, 3)),
    _resnet(50, Bottleneck, (3, 4, 6, 3)),
    _resnet(101, Bottleneck, (3, 4, 23, 3)),
    _resnet(152, Bottleneck, (3, 8, 36, 3)),
    _resnext(50, (3, 4, 6, 3), 32, 4),
    _resnext(101, (3, 4, 23, 3), 32, 8),
    _resnext(101, (3, 4, 23, 3), 64, 4),
    _cifar_resnet(20),
    _cifar_resnet(32),
    _cifar_resnet(44),
    _cifar_resnet(56),
    _cifar_resnet(110),
)
