"""Finding a network by what the user calls it, and building it.

resnet50                                a name of the zoo
resnext[depth=29,stages=3,...]          a spec (see :mod:`rexport.models.families`)
torchvision:resnet50, timm:resnet50     another library's
package.module:callable                 the user's own
resnet18+resnet34+resnet50              an ensemble of any of these
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rexport._errors import UsageError, WeightsError
from rexport.models.ensemble import Ensemble
from rexport.models.families import parse_spec
from rexport.models.published_weights import fetch
from rexport.models.references import from_reference
from rexport.models.weights import load_weights
from rexport.models.weights_file import stored_classes
from rexport.models.zoo import NETWORKS, Network, cifar_network, from_spec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "find", "networks"]


def networks() -> tuple[Network, ...]:
    """Return all networks that have a name, by family and depth."""
    return NETWORKS


def find(name: str) -> Network:
    """Return the network that is called so (see above).

    Raises:
        UsageError: There is none; the message has the nearest names, or the rule that a spec breaks.
        UnavailableError: It is another library's, which can't be imported.

    Example:
        >>> find("cifar_resnet26").depth
        26
        >>> find("resnet18+resnet34").num_classes
        1000
    """
    if "+" in name and ":" not in name.partition("+")[0]:
        return _ensemble(name)
    for network in NETWORKS:
        if network.name == name:
            return network
    parsed = parse_spec(name)
    if parsed is not None:
        return from_spec(name.replace(" ", ""), *parsed)
    found = cifar_network(name) or from_reference(name)
    if found is not None:
        return found
    names = [network.name for network in NETWORKS]
    near = [known for known in names if name and known.startswith(name.lower())][:3]
    near = near or difflib.get_close_matches(name.lower(), names, n=3)
    question = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"There is no network {name!r}.{question} `rexport models` lists them all.")


def build(name: str, *, weights: Path | str | None = None, num_classes: int | None = None, seed: int = 0) -> nn.Module:
    """Build a network, ready for inference.

    Args:
        name: As :func:`find` takes it.
        weights: A state dict (see :mod:`rexport.models.weights`), or published weights by their reference (see
            :mod:`rexport.models.published_weights`); for an ensemble one, or one for each member with a ``+``
            between. Without it, they are drawn from ``seed``.
        num_classes: Outputs of the head; where not given, as many as the weights name classes, or the dataset has.
        seed: The same seed gives the same weights. PyTorch's global generator is left as it was.

    Returns:
        The module on the CPU, float32, in evaluation mode.

    Raises:
        UsageError: There is no such network, or the number of classes is not positive.
        WeightsError: The weights can't be fetched, can't be read or do not fit.

    Example:
        >>> build("cifar_resnet20", num_classes=100).fc.out_features
        100
    """
    network = find(name)
    classes = len(stored_classes(weights)) or network.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise UsageError(f"A network has one class or more, and not {classes}.")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would seed the accelerators too, which fork_rng(devices=[]) does not restore
        torch.default_generator.manual_seed(seed)
        module = network.construct(classes)
    if weights is not None:
        _fill(network, module, str(weights))
    return module.eval()


def _ensemble(name: str) -> Network:
    parts = [part.strip() for part in name.split("+")]
    if not all(parts):
        raise UsageError(f"An ensemble is networks with a + between, and {name!r} lacks one of them.")
    members = tuple(find(part) for part in parts)
    first = members[0]
    ways = {member.preprocessing for member in members}
    for other in members[1:]:
        for what in ("input_size", "num_classes"):
            if getattr(other, what) != getattr(first, what):
                raise UsageError(
                    f"{first.name} and {other.name} can't be averaged: their {what.replace('_', ' ')} is "
                    f"{getattr(first, what)} and {getattr(other, what)}."
                )
    if len(ways - {None}) > 1:
        raise UsageError(f"{name} can't be averaged: their libraries prepare pictures in different ways.")
    return Network(
        name="+".join(member.name for member in members),
        depth=max((member.depth for member in members if member.depth), default=None),
        paper="ensemble",
        dataset=first.dataset,
        input_size=first.input_size,
        num_classes=first.num_classes,
        construct=lambda num_classes: Ensemble(member.construct(num_classes) for member in members),
        members=members,
        preprocessing=first.preprocessing if len(ways) == 1 else None,
        inexpressible=next((member.inexpressible for member in members if member.inexpressible), ""),
        assumed_size=any(member.assumed_size for member in members),
    )


def _fill(network: Network, module: nn.Module, weights: str) -> None:
    """Load a network's weights, an ensemble's from one file or from one for each member."""
    if isinstance(module, Ensemble) and "+" in weights and not Path(weights).exists():
        files = weights.split("+")
        if len(files) != len(network.members):
            raise WeightsError(
                f"{network.name} has {len(network.members)} networks, and --weights names {len(files)} files; "
                "name one for each, with a + between."
            )
        for member, file in zip(module.members, files, strict=True):
            load_weights(member, fetch(file))
    else:
        load_weights(module, fetch(weights))
