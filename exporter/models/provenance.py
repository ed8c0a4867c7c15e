"""The facts about a network with weights: how its pictures are prepared, and the names of its outputs.

The preprocessing comes from the weights or the settings of their trainer, else from their publisher, else from the
network's library; where none of them states it, the usual one is assumed, and reported as assumed. The names of classes
are never assumed: ten classes need not be CIFAR-10's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport.models.modules import picture_channels
from rexport.models.published_weights import published_facts
from rexport.models.trainer_settings import validation_preprocessing
from rexport.models.weights_facts import WeightsFacts, read_weights_facts
from rexport.preprocessing import PictureOptions, Preprocessing, sides_of

if TYPE_CHECKING:
    from torch import nn

    from rexport.models.zoo import Network
    from rexport.preprocessing import Size

__all__ = ["for_channels_of", "known_facts", "network_preprocessing"]


def known_facts(network: Network, weights: Path | str | None) -> WeightsFacts:
    """Return the facts in the weights or from their publisher; the preprocessing may come from the network's library.

    Args:
        network: The network of the weights.
        weights: As :func:`rexport.build` takes them; ``None`` stands for random ones.

    Raises:
        UsageError: They are of an ensemble, and their facts differ.
        WeightsError: Their preprocessing can't be read.
        UnavailableError: They are of a library that can't be imported.
    """
    facts_by_file = [published_facts(file) or read_weights_facts(file) for file in _files(network, weights)]
    first = next(iter(facts_by_file), WeightsFacts())
    if any(facts != first for facts in facts_by_file):
        raise UsageError(f"{weights} can't be averaged: they were trained with other classes or another preprocessing.")
    classes = first.classes
    if not classes and weights is not None and str(weights) == network.weights:
        classes = network.classes
    preprocessing = first.preprocessing
    if preprocessing is None and weights is not None:
        preprocessing = validation_preprocessing(weights, network)
    if preprocessing is None and network.preprocessing is not None:
        # a library's network says how its own weights were trained, and not how somebody's file was
        is_own = weights is None or str(weights) == network.weights
        preprocessing = network.preprocessing if is_own else replace(network.preprocessing, assumed=True)
    return WeightsFacts(preprocessing=preprocessing, classes=classes)


def network_preprocessing(
    network: Network,
    weights: Path | str | None,
    options: PictureOptions | None = None,
    *,
    module: nn.Module | None = None,
) -> tuple[Preprocessing, str | None]:
    """Return how pictures become the input of a network: its known preprocessing, with the user's ``options``.

    Args:
        network: The network.
        weights: As for :func:`known_facts`.
        options: The parts to replace.
        module: The network itself; where its pictures have another number of channels than those that are known, their
            mean and standard deviation are assumed.

    Returns:
        The preprocessing, and a sentence for the user if it is assumed in part, or ``options`` replace what is known.

    Raises:
        UsageError: As :func:`known_facts`; or its library's preprocessing can't be expressed.
    """
    options = options or PictureOptions()
    preprocessing = known_facts(network, weights).preprocessing
    if preprocessing is None and network.inexpressible and None in (options.resize, options.mean, options.std):
        raise UsageError(network.inexpressible)
    size = options.size
    if (preprocessing is None or preprocessing.assumed) and not network.assumed_size:
        size = size or network.input_size
    preprocessing = preprocessing or Preprocessing.default_for(size or network.input_size)
    if not preprocessing.assumed:
        size = size or preprocessing.size
    if module is not None:
        preprocessing = for_channels_of(module, preprocessing, size)
    return replace(options, size=size).applied_to(preprocessing, str(weights or network.name))


def for_channels_of(module: nn.Module, preprocessing: Preprocessing, size: Size | None = None) -> Preprocessing:
    """Return ``preprocessing`` for pictures of as many channels as ``module`` takes, by default of its own ``size``.

    For another number of channels than its own, the usual mean and standard deviation are assumed.
    """
    size = size or preprocessing.size
    channels = picture_channels(module, (preprocessing.channels, *sides_of(size)))
    if channels == preprocessing.channels:
        return preprocessing
    usual = Preprocessing.default_for(size, channels)
    return replace(preprocessing, mean=usual.mean, std=usual.std, assumed=True)


def _files(network: Network, weights: Path | str | None) -> list[str]:
    if weights is None:
        return []
    if network.members and "+" in str(weights) and not Path(weights).exists():
        return str(weights).split("+")
    return [str(weights)]
