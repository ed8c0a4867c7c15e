"""What is known of a network with weights: how its pictures are prepared, and what its outputs are called.

Of the preprocessing, the weights have the first word, then those who publish them, then the network's library; where
none of them says anything, the field's habit is assumed, and said to be. The names of classes are never assumed: that
there are ten of them does not make them CIFAR-10's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport.models.published_weights import published_facts
from rexport.models.weights_facts import WeightsFacts, read_weights_facts
from rexport.preprocessing import PictureOptions, Preprocessing

if TYPE_CHECKING:
    from rexport.models.zoo import Network

__all__ = ["known_facts", "network_preprocessing"]


def known_facts(network: Network, weights: Path | str | None) -> WeightsFacts:
    """Return what the weights or their publishers say; of the preprocessing, else what the network's library does.

    Args:
        network: What the weights are for.
        weights: As :func:`rexport.build` takes them; ``None`` are random ones.

    Raises:
        UsageError: They are of an ensemble, and say different things.
        WeightsError: They say something of their preprocessing that makes no sense.
        UnavailableError: They are of a library that can't be imported.
    """
    said = [_said(file) for file in _files(network, weights)]
    first = said[0] if said else WeightsFacts()
    if any(facts != first for facts in said):
        raise UsageError(f"{weights} can't be averaged: they were trained with other classes or another preprocessing.")
    return WeightsFacts(preprocessing=first.preprocessing or network.preprocessing, classes=first.classes)


def network_preprocessing(
    network: Network, weights: Path | str | None, options: PictureOptions | None = None
) -> tuple[Preprocessing, str | None]:
    """Return how pictures become the input of a network: what is known, with what the user's ``options`` change.

    Args:
        network: The network.
        weights: As for :func:`known_facts`.
        options: What takes the place of what is known.

    Returns:
        With a sentence for the user, where not everything is known or ``options`` replace what is.

    Raises:
        UsageError: As :func:`known_facts`; or its library prepares them in a way that can't be stated.
    """
    options = options or PictureOptions()
    known = known_facts(network, weights).preprocessing
    if known is None and network.inexpressible and None in (options.resize, options.mean, options.std):
        raise UsageError(network.inexpressible)
    size = options.size
    if known is None or known.assumed:
        size = size or (None if network.assumed_size else network.input_size)
    known = known or Preprocessing.default_for(size or network.input_size)
    return replace(options, size=size).applied_to(known, str(network.name if weights is None else weights))


def _files(network: Network, weights: Path | str | None) -> list[str]:
    if weights is None:
        return []
    together = network.members and "+" in str(weights) and not Path(weights).exists()
    return str(weights).split("+") if together else [str(weights)]


def _said(weights: str) -> WeightsFacts:
    return published_facts(weights) or read_weights_facts(weights)
