"""The metadata of a ``.safetensors`` file of weights: how pictures were prepared in training, and the classes.

classes          JSON: the names of the outputs, in order
network          the network, as `rexport train` was told it
preprocessing    JSON, as in the metadata of ONNX files (see :mod:`rexport.preprocessing`)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rexport._errors import ModelFileError, WeightsError
from rexport._files import write_bytes
from rexport.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

__all__ = ["WeightsFacts", "read_weights_facts", "save_weights", "stored_classes"]


@dataclass(frozen=True, kw_only=True)
class WeightsFacts:
    """The facts about weights.

    Attributes:
        preprocessing: How pictures became the network's input in training; ``None`` if it is not known.
        classes: The names of the outputs, in order; empty if they are not known.
        network: The network that they are of, as ``rexport train`` was told it; no part of equality, as members of an
            ensemble differ in it.
    """

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    network: str | None = field(default=None, compare=False)


def save_weights(module: nn.Module, path: Path, facts: WeightsFacts) -> None:
    """Write a network's state dict with its facts; equal weights and facts make equal files, to the byte.

    Raises:
        OutputError: It can't be written.
    """
    metadata = {}
    if facts.classes:
        metadata["classes"] = json.dumps(facts.classes)
    if facts.preprocessing is not None:
        metadata["preprocessing"] = facts.preprocessing.to_json()
    if facts.network is not None:
        metadata["network"] = facts.network
    write_bytes(path, _in_order(save(module.state_dict(), metadata)))


def read_weights_facts(weights: Path | str | None) -> WeightsFacts:
    """Return the facts in a ``.safetensors`` file, none for another file or one that can't be read.

    Raises:
        WeightsError: Its preprocessing can't be read.
    """
    if weights is None or Path(weights).suffix.lower() != ".safetensors" or not Path(weights).is_file():
        return WeightsFacts()
    path = Path(weights)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):  # loading the weights will say why
        return WeightsFacts()
    try:
        preprocessing = Preprocessing.from_json(metadata["preprocessing"]) if "preprocessing" in metadata else None
    except ModelFileError as error:
        raise WeightsError(
            f"What {path} says of its preprocessing can't be read; write it again with `rexport train`, or without."
        ) from error
    return WeightsFacts(
        preprocessing=preprocessing, classes=_names(metadata.get("classes", "[]")), network=metadata.get("network")
    )


def stored_classes(weights: Path | str | None) -> tuple[str, ...]:
    """Return the names of the classes that a ``.safetensors`` file says it was trained on, or ``()``."""
    return read_weights_facts(weights).classes


def _names(text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted: the library's order changes from run to run.

    A file is the length of its header in 8 bytes, the header in JSON, padded with spaces to a multiple of 8, and then
    the tensors, whose places the header counts from its end (the format's README, "Format").
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
