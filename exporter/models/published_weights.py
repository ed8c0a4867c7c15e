"""Weights that others publish, by reference: fetched by the library that publishes them, into its own cache.

torchvision:ResNet50_Weights.IMAGENET1K_V2    by its names of weights; the file's hash is checked by torchvision
hub:OWNER/NAME                                model.safetensors of a repository on the Hugging Face hub
hub:OWNER/NAME/FILE                           another file there
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from urllib.parse import urlparse

import torch

from rexport._errors import UnavailableError, UsageError, WeightsError
from rexport.models.references import import_torchvision

__all__ = ["fetch"]

_HUB_FILE = "model.safetensors"


def fetch(weights: str | Path) -> Path:
    """Return the file that holds ``weights``: itself, or the cached one that a reference stands for.

    Raises:
        UsageError: The reference names nothing.
        UnavailableError: The library that it takes can't be imported.
        WeightsError: It is not in the cache and can't be fetched.
    """
    where, colon, what = str(weights).partition(":")
    if colon and where == "torchvision":
        return _from_torchvision(what)
    if colon and where == "hub":
        return _from_hub(what)
    return Path(weights)


def _from_torchvision(name: str) -> Path:
    models = import_torchvision().models
    known = [
        f"{type(weight).__name__}.{weight.name}"
        for network in models.list_models(module=models)
        for weight in models.get_model_weights(network)
    ]
    try:
        chosen = models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" They are called as {known[0]} is."
        raise UsageError(f"torchvision has no weights {name!r}.{hint}") from error
    try:
        chosen.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a download that does not have its hash
        raise _not_fetched(f"torchvision:{name}", chosen.url, error) from error
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(chosen.url).path).name)


def _from_hub(reference: str) -> Path:
    owner, _, rest = reference.partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name):
        raise UsageError(f"hub:{reference} names no repository; write hub:OWNER/NAME, or hub:OWNER/NAME/FILE.")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UnavailableError(
            "hub: references need huggingface_hub, which is not installed: pip install 'rexport[hub]'."
        ) from error
    try:
        return Path(hub.hf_hub_download(f"{owner}/{name}", file or _HUB_FILE))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are of these, and so is a lost network
        place = f"the file {file or _HUB_FILE} of {owner}/{name} on the Hugging Face hub"
        raise _not_fetched(f"hub:{reference}", place, error) from error


def _not_fetched(reference: str, place: str, error: Exception) -> WeightsError:
    lines = str(error).strip().splitlines()
    why = lines[0].rstrip(".") if lines else type(error).__name__
    return WeightsError(
        f"{reference} can't be fetched ({why}). On a machine with a network, download {place}, bring it here, and pass "
        "it as --weights FILE."
    )
