"""Finding a network by the user's name for it, and building it.

resnet50                                a name of the zoo
resnext[depth=29,stages=3,...]          a spec (see :mod:`rexport.models.families`)
torchvision:resnet50, timm:resnet50     another library's
package.module:callable[depth=20]       the user's own, with arguments if it needs any
resnet18+resnet34+resnet50              an ensemble of any of these
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from rexport._errors import UsageError, WeightsError
from rexport._weights_file import require_not_weights
from rexport._words import did_you_mean
from rexport.models.ensemble import Ensemble
from rexport.models.families import parse_spec
from rexport.models.modules import return_one_tensor
from rexport.models.published_weights import fetch, fit_epsilon
from rexport.models.references import from_module, from_reference
from rexport.models.weights import classes_of_weights, last_linear, load_weights, read_state_dict
from rexport.models.weights_facts import stored_classes
from rexport.models.zoo import NETWORKS, Network, cifar_network, from_spec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["build", "find", "networks"]


def networks() -> tuple[Network, ...]:
    """Return all networks that have a name, by family and depth."""
    return NETWORKS


def find(name: str | nn.Module) -> Network:
    """Return the network of this name (see above), or the one that a module is.

    Raises:
        UsageError: There is none; the message has the nearest names, or the rule that a spec breaks.
        UnavailableError: It is another library's, which can't be imported.

    Example:
        >>> find("cifar_resnet26").depth
        26
        >>> find("resnet18+resnet34").num_classes
        1000
    """
    if isinstance(name, nn.Module):
        return from_module(name)
    if "+" in name and ":" not in name.partition("+")[0]:
        return _ensemble(name)
    for network in NETWORKS:
        if network.name == name:
            return network
    parsed = parse_spec(name)
    if parsed is not None:
        return from_spec(name.replace(" ", ""), *parsed)
    if candidate := cifar_network(name) or from_reference(name):
        return candidate
    _refuse_file(name)
    names = [network.name for network in NETWORKS]
    near = [candidate for candidate in names if name and candidate.startswith(name.lower())][:3]
    hint = did_you_mean(near or difflib.get_close_matches(name.lower(), names, n=3))
    raise UsageError(f"There is no network {name!r}.{hint} `rexport models` lists them all.")


def _refuse_file(name: str) -> None:
    """Raise :class:`UsageError` where a file was named instead of a network."""
    require_not_weights(name)
    if Path(name).suffix.lower() == ".onnx":
        raise UsageError(
            f"{name} is an ONNX file, and not a network; `rexport fuse` and `rexport quantize` take it as it is."
        )


def build(
    name: str | nn.Module,
    *,
    weights: Path | str | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    result: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """Build a network, ready for inference.

    Args:
        name: As :func:`find` takes it.
        weights: A state dict (see :mod:`rexport.models.weights`), or published weights by their reference (see
            :mod:`rexport.models.published_weights`); for an ensemble one, or one for each member with a ``+``
            between. Without it, they are drawn from ``seed``.
        num_classes: Outputs of the head; by default as many as the weights have, or the network by itself.
        seed: The same seed gives the same weights. PyTorch's global generator is left as it was.
        result: The tensor to return of a network that returns several; by default the first (see
            :func:`rexport.models.modules.results_of`).
        tell: Called with a sentence about the weights that were left out.

    Returns:
        The module on the CPU, float32, in evaluation mode.

    Raises:
        UsageError: There is no such network, the number of classes is not positive, or has no effect on it; or it is on
            the meta device, and there are no weights.
        WeightsError: The weights can't be fetched, can't be read or do not fit.

    Example:
        >>> build("cifar_resnet20", num_classes=100).fc.out_features
        100
    """
    network = find(name)
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"A network has one class or more, and not {num_classes}.")
    classes = num_classes or len(stored_classes(weights)) or network.num_classes
    module = _construct(network, classes, seed)
    if weights is not None:
        if num_classes is None and (outputs := _outputs_in(network, module, str(weights))):
            module = _construct(network, outputs, seed)
        _fill(network, module, str(weights), tell)
    elif any(tensor.is_meta for tensor in module.state_dict().values()):
        raise UsageError(
            f"{network.name} is made on the meta device, without numbers; pass --weights FILE, or make it on the CPU."
        )
    if result is not None:
        return_one_tensor(module, result)
    return module.eval()


def _construct(network: Network, classes: int | None, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would seed the accelerators too, which fork_rng(devices=[]) does not restore
        torch.default_generator.manual_seed(seed)
        return network.construct(classes)


def _outputs_in(network: Network, module: nn.Module, weights: str) -> int | None:
    """Return the number of classes of the weights, if ``module`` differs from them in that number only."""
    if isinstance(module, Ensemble) and "+" in weights and not Path(weights).exists():
        network, module, weights = network.members[0], module.members[0], weights.split("+")[0]
    own = module.state_dict()
    try:
        stored = read_state_dict(fetch(weights), module)
        classes = network.num_classes or len(own[f"{last_linear(module)}.weight"])
    except WeightsError:  # loading them says why
        return None
    return classes_of_weights(own, stored, classes)


def _ensemble(name: str) -> Network:
    parts = [part.strip() for part in name.split("+")]
    if not all(parts):
        raise UsageError(f"An ensemble is networks with a + between, and {name!r} lacks one of them.")
    members = tuple(find(part) for part in parts)
    first = members[0]
    classified = next((member for member in members if member.num_classes is not None), first)
    for member in members[1:]:
        if member.input_size != first.input_size:
            raise _not_averaged(first, member, "input_size")
        if member.num_classes not in (None, classified.num_classes):
            raise _not_averaged(classified, member, "num_classes")
    ways = {member.preprocessing for member in members}
    if len(ways - {None}) > 1:
        raise UsageError(f"{name} can't be averaged: their libraries prepare pictures in different ways.")
    return Network(
        name="+".join(member.name for member in members),
        depth=max((member.depth for member in members if member.depth), default=None),
        paper="ensemble",
        dataset=first.dataset,
        input_size=first.input_size,
        num_classes=classified.num_classes,
        construct=lambda num_classes: Ensemble(member.construct(num_classes) for member in members),
        members=members,
        preprocessing=first.preprocessing if len(ways) == 1 else None,
        inexpressible=next((member.inexpressible for member in members if member.inexpressible), ""),
        assumed_size=any(member.assumed_size for member in members),
        no_classifier=next((member.no_classifier for member in members if member.no_classifier), ""),
    )


def _not_averaged(first: Network, second: Network, attribute: str) -> UsageError:
    values = f"{getattr(first, attribute)} and {getattr(second, attribute)}"
    quantity = attribute.replace("_", " ")
    return UsageError(f"{first.name} and {second.name} can't be averaged: their {quantity} is {values}.")


def _fill(network: Network, module: nn.Module, weights: str, tell: Callable[[str], None]) -> None:
    """Load a network's weights, an ensemble's from one file or from one for each member."""
    if isinstance(module, Ensemble) and "+" in weights and not Path(weights).exists():
        files = weights.split("+")
        if len(files) != len(network.members):
            raise WeightsError(
                f"{network.name} has {len(network.members)} networks, and --weights names {len(files)} files; "
                "name one for each, with a + between."
            )
        for member, file in zip(module.members, files, strict=True):
            load_weights(member, fetch(file), tell=tell)
    else:
        load_weights(module, fetch(weights), tell=tell)
    fit_epsilon(network, module, weights, tell)
