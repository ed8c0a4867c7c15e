"""timm's networks, with its preprocessing.

    resnet50                     an architecture
    resnet50.a1_in1k             an architecture and its published weights
    hf-hub:OWNER/NAME            a repository on the Hugging Face hub, with config.json and model.safetensors
    local-dir:FOLDER             a folder with these files

All but the first name weights too (``Network.weights``); what is timm's own is known without the hub.
"""

from __future__ import annotations

import importlib
import logging
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError, UsageError, WeightsError
from rexport._words import first_line
from rexport.models.adopted import DEFAULT_CLASSES, imagenet_network, require_known
from rexport.models.torchvision_networks import import_torchvision
from rexport.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rexport.models.zoo import Network

__all__ = ["find_timm", "first_sentence", "import_timm", "of_timm", "without_retry_warnings"]

_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")


def import_timm() -> Any:
    """Import timm.

    Raises:
        UnavailableError: It is not installed, or can't be imported.
    """
    try:
        import_torchvision()  # timm imports it, and can't where this can
        return importlib.import_module("timm")
    except (ImportError, UnavailableError) as error:
        raise UnavailableError(f"timm can't be imported ({error}): pip install timm.") from error


@contextmanager
def without_retry_warnings() -> Iterator[None]:
    """Silence the warnings of the Hugging Face hub's library, two for each of its five retries without a network."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of an error's message, without its full stop."""
    return first_line(error).partition(". ")[0].rstrip(".")


def find_timm(name: str, arguments: Mapping[str, object]) -> Network:
    """Return timm's network of this name (see above), made with these ``arguments`` of ``create_model``.

    Raises:
        UsageError: There is none.
        WeightsError: The configuration of a repository or folder can't be read.
        UnavailableError: timm can't be imported.
    """
    timm = import_timm()
    source, _, place = name.replace("hf_hub:", "hf-hub:").partition(":")
    names = timm.list_models() + timm.list_models(pretrained=True)
    if source == "hf-hub" and place.removeprefix("timm/") in names:
        return replace(find_timm(place.removeprefix("timm/"), arguments), name=f"timm:{name}")
    if place:
        return _of_configuration(timm, name, source, place, arguments)
    require_known(name, names, "timm")
    network = imagenet_network(
        "timm",
        name,
        lambda classes: timm.create_model(name, **({"num_classes": classes} | dict(arguments)), pretrained=False),
    )
    settings = timm.get_pretrained_cfg(name)
    if settings is None:
        return network
    network = _prepared(network, name, settings)
    if "." in name and settings.hf_hub_id:
        network = replace(network, weights=f"hub:{settings.hf_hub_id}")
    return network


def of_timm(name: str, settings: Any) -> Preprocessing:
    """Return how timm prepares pictures, by its ``PretrainedCfg`` and what ``timm.data.create_transform`` makes of it.

    Raises:
        UsageError: A :class:`rexport.Preprocessing` can't say it.
    """
    channels, height, width = settings.input_size
    resize = math.floor(height / settings.crop_pct)
    if (channels, height) != (3, width) or len(settings.mean) != 3:
        resizing = f"to {channels}×{height}×{width}"
    elif settings.crop_mode != "center":
        resizing = f"by the crop mode {settings.crop_mode}"
    elif resize < height:
        resizing = f"to less than the {height} pixels of the crop"
    elif settings.interpolation not in tuple(Interpolation):
        resizing = f"by the interpolation {settings.interpolation}"
    else:
        return Preprocessing(
            size=height,
            resize=resize,
            mean=tuple(settings.mean),
            std=tuple(settings.std),
            interpolation=Interpolation(settings.interpolation),
        )
    raise UsageError(
        f"timm resizes the pictures of {name} {resizing}, which rexport's preprocessing can't say; state another with "
        "--resize, --mean and --std."
    )


def _prepared(network: Network, name: str, settings: Any) -> Network:
    """Return ``network`` with the size and the preprocessing that timm's ``settings`` state."""
    network = replace(network, input_size=settings.input_size[-1])
    try:
        return replace(network, preprocessing=of_timm(name, settings))
    except UsageError as error:
        return replace(network, inexpressible=str(error))


def _of_configuration(timm: Any, name: str, source: str, place: str, arguments: Mapping[str, object]) -> Network:
    """Return the network that a ``config.json`` on the hub or in a folder describes."""
    match source:
        case "hf-hub":
            weights, read = f"hub:{place}", timm.models.load_model_config_from_hf
        case "local-dir":
            files = [Path(place, file) for file in _FOLDER_FILES]
            weights = next((str(file) for file in files if file.is_file()), str(files[0]))
            read = importlib.import_module("timm.models._hub").load_model_config_from_path
        case _:
            raise UsageError(
                f"timm:{name}: timm takes names, hf-hub:OWNER/NAME and local-dir:FOLDER, and no {source}:."
            )
    try:
        with without_retry_warnings():
            stated, architecture, stated_arguments = read(place)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # a lost network is one of these too
        hint = "."
        if source == "hf-hub":
            hint = "; download the repository, and name its folder: timm:local-dir:FOLDER."
        raise WeightsError(
            f"The config.json that timm:{name} names can't be read ({first_sentence(error)}){hint}"
        ) from error
    require_known(architecture, timm.list_models(), "timm")
    settings = timm.models.resolve_pretrained_cfg(architecture, stated)
    others = {key: value for key, value in (stated_arguments or {}).items() if key != "num_classes"}
    arguments = {**others, **arguments}
    classes = settings.num_classes or DEFAULT_CLASSES
    network = imagenet_network(
        "timm",
        name,
        lambda number: timm.create_model(architecture, **{"num_classes": number, **arguments}, pretrained=False),
    )
    return replace(
        _prepared(network, name, settings),
        dataset=None,
        num_classes=classes,
        construct=lambda number: network.construct(number or classes),
        weights=weights,
        classes=tuple(settings.label_names or ()),
    )
