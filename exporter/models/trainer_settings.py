"""The settings in checkpoints of timm's ``train.py`` and of torchvision's reference scripts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rexport._errors import UsageError, WeightsError
from rexport.models.checkpoints import read_weights
from rexport.models.timm_networks import import_timm, of_timm
from rexport.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from rexport.models.zoo import Network

__all__ = ["settings_in", "validation_preprocessing"]

_KEYS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt")


def settings_in(stated: Mapping[str, object]) -> Mapping[str, Any]:
    """Return a trainer's settings, from what stands beside the weights; empty if there are none."""
    for key in _KEYS:
        settings = stated.get(key)
        if isinstance(settings, Mapping):
            return settings
        with suppress(TypeError):  # vars() of what has none
            return vars(settings)
    return {}


def validation_preprocessing(weights: Path | str, network: Network) -> Preprocessing | None:
    """Return how pictures were prepared in validation, as a checkpoint's settings say.

    timm's settings are changes of the preprocessing of the ``network``, one of timm's.

    Returns:
        ``None`` for another file, and for settings that a :class:`rexport.Preprocessing` can't express.
    """
    path = Path(weights)
    if path.suffix.lower() in (".safetensors", ".onnx") or not path.is_file():
        return None
    try:
        settings = settings_in(read_weights(path).stated)
        if {"val_resize_size", "val_crop_size"} <= settings.keys():
            return _torchvisions(settings)
        if "crop_pct" in settings and network.name.startswith("timm:"):
            return _timms(settings, network.name.removeprefix("timm:").partition("[")[0])
    except (WeightsError, UsageError, ValueError, TypeError):  # loading the weights says why; no numbers
        return None
    return None


def _torchvisions(settings: Mapping[str, Any]) -> Preprocessing | None:
    """``references/classification/presets.py``, ``ClassificationPresetEval``: resized, cut, ImageNet's mean and std."""
    size, resize = int(settings["val_crop_size"]), int(settings["val_resize_size"])
    if not 0 < size <= resize:
        return None
    return Preprocessing(
        size=size, resize=resize, interpolation=Interpolation(settings.get("interpolation", "bilinear"))
    )


def _timms(settings: Mapping[str, Any], name: str) -> Preprocessing | None:
    """Return what ``timm.data.resolve_data_config`` makes of them: where one is not set, the network's holds."""
    timm = import_timm()
    network = timm.get_pretrained_cfg(name)
    if network is None:
        return None
    resolved = timm.data.resolve_data_config(dict(settings), pretrained_cfg=network.to_dict())
    return of_timm(name, SimpleNamespace(**resolved))
