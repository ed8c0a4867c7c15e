"""The network that a checkpoint is of: as the checkpoint names it, or else the ones whose tensors have its shapes.

    arch                              of timm's train.py and PyTorch's ImageNet example
    args.model, args.arch             of timm's train.py and torchvision's references
    hyper_parameters.arch, .model     of Lightning
    network                           in the metadata of rexport's own files

A name is taken only if the weights fit its network, and never to import a module: the file may be anybody's.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

from rexport._errors import RexportError, UnavailableError, UsageError, WeightsError
from rexport._words import first_few
from rexport.models import registry
from rexport.models.checkpoints import read_weights
from rexport.models.timm_networks import import_timm
from rexport.models.torchvision_networks import import_torchvision
from rexport.models.trainer_settings import settings_in
from rexport.models.weights import classes_of_weights, last_linear, names_in_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from rexport.models.checkpoints import StoredWeights
    from rexport.models.zoo import Network

__all__ = ["network_of"]

_NAMES = ("network", "arch", "model", "model_name", "architecture", "backbone")
# a zoo name, a spec, or a library's name; arguments of a library's functions may load files
_NAME = re.compile(r"(?:torchvision|timm):[\w.\-]+|[\w.\-]+(?:\[[\w=,.]*\])?")
# what timm's and torchvision's trainers change in a network without a trace in its weights
_CHANGES = ("model_kwargs", "gp")
_CONVOLUTIONS = 8  # that a residual network of another library has at least; comparing with all takes half a minute
_LIKE = 0.5  # of a network's tensors, from which on a file looks like it


@dataclass(frozen=True)
class _Fit:
    """The part of a network's tensors that a file has in their shapes; ``exact`` if heads alone differ, if anything."""

    network: Network
    part: float
    exact: bool
    classes: int | None

    def in_words(self) -> str:
        return f"{self.network.name} with {self.classes} classes" if self.classes else self.network.name


def network_of(path: Path) -> str:
    """Return the name of the network that a checkpoint states and fits.

    Raises:
        UsageError: It states none, or one that it does not fit; the message has the command to type.
        WeightsError: It can't be read.
    """
    stored = read_weights(path)
    if not stored.entries:
        raise WeightsError(f"{path} holds no tensors.")
    stated = list(dict.fromkeys(_stated(stored)))
    settings = settings_in(stored.stated)
    changes = [f"{key}={settings[key]}" for key in _CHANGES if settings.get(key)]
    if not changes:
        for name in stated:
            fit = _fit_of(name, stored)
            if fit is not None and fit.exact:
                return name
    raise UsageError(_advice(path, stored, stated, changes))


def _stated(stored: StoredWeights) -> Iterator[str]:
    """Yield the names of networks that a checkpoint may mean, the likeliest first."""
    settings = settings_in(stored.stated)
    entries = [stored.stated.get("network"), stored.stated.get("arch"), *(settings.get(key) for key in _NAMES)]
    libraries = ("", "torchvision:", "timm:")
    if settings and "arch" in stored.stated:  # timm's train.py
        libraries = ("timm:", "", "torchvision:")
    elif settings and "model" in settings:  # torchvision's references
        libraries = ("torchvision:", "", "timm:")
    for name in entries:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            continue
        if ":" in name or name == stored.stated.get("network"):
            yield name
        else:
            yield from (f"{library}{name}" for library in libraries)


def _fit_of(name: str, stored: StoredWeights) -> _Fit | None:
    """Compare a network with the stored weights; ``None`` if there is no such network here."""
    try:
        network = registry.find(name)
        module = _on_meta(network)
    except RexportError:
        return None
    own = {key: tensor for key, tensor in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    names = names_in_network(stored.entries, module)
    tensors = {names[key]: value for key, value in stored.entries.items() if key in names}
    weights = {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    alike = sum(key in weights and weights[key].shape == tensor.shape for key, tensor in own.items())
    classes = network.num_classes
    with suppress(RexportError):  # no linear layer
        classes = len(own[f"{last_linear(module)}.weight"])
    if classes and (count := classes_of_weights(own, weights, classes)):
        return _Fit(network, alike / len(own), own.keys() == weights.keys(), count)
    return _Fit(network, alike / len(own), own.keys() == weights.keys() and alike == len(own), classes)


def _on_meta(network: Network) -> nn.Module:
    try:
        with torch.device("meta"):
            return network.construct(None)
    except NotImplementedError:  # it computes with numbers as it is made
        with torch.random.fork_rng(devices=[]):
            return network.construct(None)


def _advice(path: Path, stored: StoredWeights, stated: list[str], changes: list[str]) -> str:
    """Return which command to type for a checkpoint whose network is not stated, or not enough."""
    own = stored.stated.get("network")
    says = f"{path} holds only weights; name their network"
    if changes and stated:
        says = f"{path} says that it is of {stated[0]} with {', '.join(changes)}"
    elif isinstance(own, str) and own not in stated:
        says = f"{path} says that it is of {own}, and modules are imported only where you name them"
        return f"{says}: `rexport onnx {own} --weights {path} -o {path.stem}.onnx`."
    elif stated:
        says = f"{path} says that it is of {stated[0]}, which its weights do not fit"
    fits = sorted(_candidates(stored), key=lambda fit: (not fit.exact, -fit.part))
    if not fits or not (fits[0].exact or fits[0].part >= _LIKE):
        return (
            f"{says}: it fits none of the zoo; type `rexport onnx NETWORK --weights {path} -o {path.stem}.onnx`, "
            "with your own package.module:callable for NETWORK if there is no name for it."
        )
    nearest = fits[0]
    command = f"`rexport onnx {nearest.network.name} --weights {path} -o {path.stem}.onnx`"
    if not nearest.exact:
        return (
            f"{says}: the nearest is {nearest.network.name}, of which it has {nearest.part:.0%} of the tensors; if "
            f"it is that, type {command}."
        )
    others = [fit.network.name for fit in fits[1:] if fit.exact]
    alike = f" (or {first_few(others)}, whose weights look the same)" if others else ""
    return f"{says}: it looks like {nearest.in_words()}{alike}; type {command}."


def _candidates(stored: StoredWeights) -> list[_Fit]:
    """Compare with the zoo, the CIFAR networks of as many layers, and if none fits, with other libraries' ResNets."""
    convolutions = [
        key
        for key, value in stored.entries.items()
        if isinstance(value, torch.Tensor) and value.dim() == 4 and "downsample" not in key and "shortcut" not in key
    ]
    depth = len(convolutions) + 1
    names = [network.name for network in registry.networks()]
    names += [f"cifar_{family}{depth}" for family in ("resnet", "plain", "preact_resnet")]
    fits = [fit for name in dict.fromkeys(names) if (fit := _fit_of(name, stored))]
    if len(convolutions) < _CONVOLUTIONS:
        return fits
    for name in chain.from_iterable(_other_names()):
        if any(fit.exact for fit in fits):
            break
        if fit := _fit_of(name, stored):
            fits.append(fit)
    return fits


def _other_names() -> Iterator[list[str]]:
    """Yield the names of torchvision's and timm's residual networks, of those libraries that are installed."""
    with suppress(UnavailableError):
        models = import_torchvision().models
        yield [f"torchvision:{name}" for name in models.list_models(module=models) if "res" in name]
    with suppress(UnavailableError):
        yield [f"timm:{name}" for name in import_timm().list_models() if "res" in name]
