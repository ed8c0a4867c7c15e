"""Files of weights as trainers write them: a state dict, bare or among other things.

A file is ``.safetensors``, or one of ``torch.save`` with any suffix (``.pt``, ``.pth.tar``, ``.ckpt``). The latter is
unpickled without running any code in it: objects other than numbers, text and containers (a trainer's configuration)
become a :class:`Placeholder`, which is never used.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rexport._errors import WeightsError
from rexport._words import first_line

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StoredWeights", "read_weights"]

# the keys of the weights and of their moving average in files of PyTorch's examples and tutorials, Lightning,
# torchvision's and timm's training, DeepSpeed
_PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
_AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
_TRAINING = "rexport.training"  # the metadata of rexport.training.checkpoint
_UNKNOWN_CLASS = re.compile(r"GLOBAL (\w+(?:\.\w+)*) was not an allowed global")


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """The ``entries`` of a file's state dict, unchecked and under the file's own names.

    ``averaged`` is the key of averaged (EMA) weights in a file that has both; ``stated`` has what stands beside the
    weights: a trainer's settings, or the metadata of rexport's own files.
    """

    entries: Mapping[str, object]
    averaged: str | None = None
    stated: Mapping[str, object] = field(default_factory=dict)


class Placeholder:
    """The replacement for an object of a class that is not loaded."""

    def __new__(cls, *_arguments: object, **_keywords: object) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(path: Path) -> StoredWeights:
    """Read a file's state dict.

    Raises:
        WeightsError: The file is missing, of another kind or damaged, needs code to be read, or has no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is a folder, not a file." if path.is_dir() else f"There is no file {path}.")
    if path.suffix.lower() == ".onnx":
        raise WeightsError(f"{path} is an ONNX model, not weights; pass a .safetensors file or one of torch.save.")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    content = _read_pickle(path)
    stored = _state_dict_in(content, path)
    assert isinstance(content, Mapping)  # it has a state dict
    return replace(stored, stated={str(key): value for key, value in content.items()})


def _read_safetensors(path: Path) -> StoredWeights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, "a safetensors file", error) from error
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}.") from error
    return StoredWeights(entries=tensors, stated=_network_in(metadata))


def _network_in(metadata: Mapping[str, str]) -> dict[str, object]:
    """Return the network that ``rexport train`` names in its weights, or in a checkpoint."""
    if "network" in metadata:
        return {"network": metadata["network"]}
    with suppress(ValueError, TypeError, KeyError):
        return {"network": json.loads(metadata[_TRAINING])["identity"]["network"]}
    return {}


def _read_pickle(path: Path) -> object:
    placeholders: dict[str, type] = {}
    while True:
        allowed: list[Any] = [argparse.Namespace, *((kind, name) for name, kind in placeholders.items())]
        try:
            with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location="cpu", weights_only=True)  # old formats come with a warning
        except OSError as error:
            raise WeightsError(f"{path} can't be read: {error.strerror or error}.") from error
        except Exception as error:  # damaged pickles raise nearly anything
            unknown = _UNKNOWN_CLASS.search(str(error))
            if unknown is None:
                raise _unreadable(path, error) from error
            name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"  # PyTorch's message leaves that out
            if name in placeholders:
                raise _unreadable(path, error) from error
            placeholders[name] = type(name, (Placeholder,), {})


def _unreadable(path: Path, error: Exception) -> WeightsError:
    if "TorchScript" in str(error):
        return WeightsError(
            f"{path} is a TorchScript program, not a state dict. Save its weights with "
            "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')`."
        )
    if match := re.search(r"GLOBAL (\w+(?:\.\w+)*)", str(error)):
        return _needs_code(path, match[1])
    return _damaged(path, "a file written by torch.save", error)


def _needs_code(path: Path, name: str) -> WeightsError:
    if name.startswith("ultralytics."):
        return WeightsError(
            f"{path} is a pickled module of Ultralytics ({name}), and rexport runs no code that a file names. Convert "
            f"it there with `yolo export model={path} format=onnx`, and pass the ONNX file to `rexport fuse`."
        )
    return WeightsError(
        f"{path} can't be read without running code that it names ({name}), which rexport does not do. If you trust "
        "it, convert it once where that code is at home: "
        "`safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')`."
    )


def _damaged(path: Path, kind: str, error: Exception) -> WeightsError:
    reason = ""
    if isinstance(error, (RuntimeError, EOFError)) and str(error):
        reason = f" ({first_line(error)[:120]})"
    return WeightsError(
        f"{path} is damaged, or is not {kind}{reason}. It may be half a download, or a web page or a Git LFS "
        "pointer in the place of one; get it again."
    )


def _state_dict_in(content: object, path: Path) -> StoredWeights:
    averaged = None
    while isinstance(content, Mapping):
        mappings = {key: value for key, value in content.items() if isinstance(value, Mapping)}
        key = next((key for key in _PLAIN if key in mappings), None)
        beside = next((key for key in _AVERAGED if key in mappings), None)
        if key is None:
            key = beside or _only_state_dict(content, mappings, path)
        elif averaged is None:
            averaged = beside
        if key is None:
            return StoredWeights(entries={str(name): value for name, value in content.items()}, averaged=averaged)
        content = mappings[key]
    if isinstance(content, Placeholder):
        raise _needs_code(path, type(content).__name__)
    raise WeightsError(
        f"{path} holds a value of type {type(content).__name__}, not a state dict: names and their tensors."
    )


def _only_state_dict(content: Mapping[Any, object], mappings: Mapping[Any, Mapping[Any, object]], path: Path) -> Any:
    """Return the key of the one entry that holds tensors; ``None`` if ``content`` holds them itself."""
    network = next((content[key] for key in (*_PLAIN, *_AVERAGED) if isinstance(content.get(key), Placeholder)), None)
    if network is not None:
        raise _needs_code(path, type(network).__name__)
    if any(isinstance(value, Tensor) for name, value in content.items() if "." in str(name)):
        return None
    holders = [key for key, value in mappings.items() if any(isinstance(entry, Tensor) for entry in value.values())]
    if len(holders) > 1:
        raise WeightsError(
            f"{path} holds several state dicts ({', '.join(map(str, holders))}); save the network's alone: "
            f"`torch.save(torch.load(FILE)[{holders[0]!r}], 'weights.pth')`."
        )
    return next(iter(holders), None)
