"""Published weights, by reference: fetched by the library that publishes them, into its own cache.

torchvision:ResNet50_Weights.IMAGENET1K_V2    by its names of weights; the file's hash is checked by torchvision
hub:OWNER/NAME                                model.safetensors of a repository on the Hugging Face hub
hub:OWNER/NAME/FILE                           another file there
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import torch
from torch import nn

from rexport._errors import UnavailableError, UsageError, WeightsError
from rexport._files import file_sha256
from rexport._words import suggestion
from rexport.imagenet import imagenet_classes
from rexport.models.timm_networks import first_sentence, import_timm, of_timm, without_retry_warnings
from rexport.models.torchvision_networks import import_torchvision, of_torchvision, published_by_torchvision
from rexport.models.weights_facts import WeightsFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.models.zoo import Network

__all__ = ["fetch", "fetch_named", "fit_epsilon", "published_facts"]

_HUB_FILE = "model.safetensors"
_TORCHVISION_FILE = re.compile(r".+-([0-9a-f]{8})\.pth")  # whose name has the first digits of its SHA-256
_OLDEST_DETECTORS = tuple(
    f"torchvision:{name}_resnet50_fpn" for name in ("fasterrcnn", "keypointrcnn", "maskrcnn", "retinanet")
)
_TIMM_REPOSITORY = re.compile(r"hub:timm/([^/]+)(?:/.*)?")


def fetch(weights: str | Path) -> Path:
    """Return the file that holds ``weights``: itself, or the cached one that a reference stands for.

    Raises:
        UsageError: The reference names nothing.
        UnavailableError: The library that it takes can't be imported.
        WeightsError: It is not in the cache and can't be fetched.
    """
    match str(weights).split(":", maxsplit=1):
        case ["torchvision", name]:
            return _from_torchvision(name)
        case ["hub", reference]:
            return _from_hub(reference)
    return Path(weights)


def fetch_named(network: Network) -> str | None:
    """Fetch the weights that a network's name stands for, and return them as :func:`fetch` takes them.

    Returns:
        ``None`` if it stands for none.

    Raises:
        WeightsError: They can't be fetched.
    """
    if network.weights is None:
        return None
    try:
        fetch(network.weights)
    except (UnavailableError, WeightsError) as error:
        hint = ""
        if repository := _TIMM_REPOSITORY.fullmatch(network.weights):
            hint = f", or name timm:{repository[1].partition('.')[0]} for random weights"
        raise WeightsError(
            f"{network.name} names weights, {network.weights}, which can't be fetched "
            f"({first_sentence(error.__cause__ or error)}); pass their file with --weights FILE{hint}."
        ) from error
    return network.weights


def published_facts(weights: Path | str) -> WeightsFacts | None:
    """Return the publisher's facts about weights; ``None`` if they are neither torchvision's nor timm's.

    They are torchvision's by a ``torchvision:`` reference, or by the hash in their file's name, if that is the file's;
    and timm's by their repository on the Hugging Face hub.

    Raises:
        UsageError: A reference names nothing, or its preprocessing can't be expressed.
        UnavailableError: The library that it takes can't be imported.
    """
    if repository := _TIMM_REPOSITORY.fullmatch(str(weights)):
        return _timms_facts(repository[1])
    published = _published(weights)
    if published is None:
        return None
    classes = tuple(published.meta.get("categories") or ())
    return WeightsFacts(preprocessing=of_torchvision(published), classes=classes)


def fit_epsilon(network: Network, module: nn.Module, weights: str, tell: Callable[[str], None]) -> None:
    """Set the ε of a network's BatchNorms to that of its weights, which no state dict has.

    It is 1e-5, but 0 in the COCO_V1 weights of torchvision's oldest detectors (``overwrite_eps`` in
    ``torchvision/models/detection``). ``tell`` is called with a sentence where that can't be known.
    """
    if network.name not in _OLDEST_DETECTORS:
        return
    published = _published(weights)
    if published is None:
        tell(
            f"{weights} does not say the ε of its BatchNorms; taking 1e-5, and it is 0 in weights that were fine-tuned "
            "from torchvision's COCO_V1."
        )
    elif published.name == "COCO_V1":
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 0.0


def _published(weights: Path | str) -> Any | None:
    """Return torchvision's member of its enumerations for weights; ``None`` if they are not torchvision's."""
    text = str(weights)
    if text.startswith("torchvision:"):
        return _torchvisions(text.removeprefix("torchvision:"))
    path = Path(weights)
    match = _TORCHVISION_FILE.fullmatch(path.name)
    if match is None or not path.is_file() or not file_sha256(path).startswith(match[1]):
        return None
    try:
        published = {Path(urlparse(weight.url).path).name: weight for weight in published_by_torchvision()}
    except UnavailableError:
        return None
    return published.get(path.name)


def _timms_facts(name: str) -> WeightsFacts | None:
    settings = import_timm().get_pretrained_cfg(name)
    if settings is None or name not in (settings.architecture, f"{settings.architecture}.{settings.tag}"):
        return None
    on_imagenet = str(settings.tag).endswith("in1k") and settings.num_classes == 1000
    classes = imagenet_classes() if on_imagenet else ()
    return WeightsFacts(preprocessing=of_timm(name, settings), classes=classes)


def _torchvisions(name: str) -> Any:
    """Return the member of torchvision's enumerations of weights with this name."""
    try:
        return import_torchvision().models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        names = [f"{type(weight).__name__}.{weight.name}" for weight in published_by_torchvision()]
        hint = suggestion(name, names, 3) or f" They are called as {names[0]} is."
        raise UsageError(f"torchvision has no weights {name!r}.{hint}") from error


def _from_torchvision(name: str) -> Path:
    weights = _torchvisions(name)
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a download that does not have its hash
        raise _not_fetched(f"torchvision:{name}", weights.url, error) from error
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def _from_hub(reference: str) -> Path:
    owner, name, file = (*reference.split("/", maxsplit=2), "", "")[:3]
    if not (owner and name):
        raise UsageError(f"hub:{reference} names no repository; write hub:OWNER/NAME, or hub:OWNER/NAME/FILE.")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UnavailableError(
            "hub: references need huggingface_hub, which is not installed: pip install 'rexport[hub]'."
        ) from error
    try:
        with without_retry_warnings():
            return Path(hub.hf_hub_download(f"{owner}/{name}", file or _HUB_FILE))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are of these, and so is a lost network
        place = f"the file {file or _HUB_FILE} of {owner}/{name} on the Hugging Face hub"
        raise _not_fetched(f"hub:{reference}", place, error) from error


def _not_fetched(reference: str, place: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{reference} can't be fetched ({first_sentence(error)}). On a machine with a network, download {place}, "
        "bring it here, and pass it as --weights FILE."
    )
