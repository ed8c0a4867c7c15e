"""The file that a training goes on from after it was stopped, at whatever point.

It is a safetensors file with the weights (``model.…``), SGD's momentum (``momentum.…``), and the state of the random
generator as the epoch began (``random``); its metadata says how far the training is, and what it is a training of. It
is written as every output is: beside its place, and moved there when it is whole.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rexport._errors import InputError, UsageError
from rexport._files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["CheckpointFile", "EpochResult", "Position", "RunIdentity", "Snapshot"]

_KEY = "rexport.training"
_FORM = 1  # of the metadata
_UNREADABLE = ("weights", "preprocessing", "classes", "images", "test_images", "qat")  # hashes, JSON, long lists


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """All that a training's result depends on, but for the machine; one can only be gone on with as itself.

    ``weights`` is the SHA-256 of the state dict it starts from; ``preprocessing`` is JSON; ``images``, ``test_images``
    and, for a training in INT8, ``qat`` are fingerprints of the pictures and of the integers.
    """

    network: str
    weights: str
    recipe: str
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    augment: bool
    freeze_backbone: bool
    device: str
    precision: str
    preprocessing: str
    classes: tuple[str, ...]
    images: str
    test_images: str
    qat: str | None = None

    def changes_from(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return in words what is different from an ``earlier`` identity's fields."""
        changes = []
        for name, now in asdict(self).items():
            before = earlier.get(name)
            if before == (list(now) if isinstance(now, tuple) else now):
                continue
            words = name.replace("_", " ")
            if name not in _UNREADABLE:
                changes.append(f"{words} was {before} and is now {now}")
            elif words.endswith("s"):
                changes.append(f"the {words} have changed")
            else:
                changes.append(f"the {words} has changed")
        return changes


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        epoch: Its number, from 1.
        loss: The mean cross-entropy of the pictures as they were trained with.
        train_top1: The fraction of them that was right, before each step.
        top1: The fraction of the test pictures that is right after the epoch; ``None`` without any.
        seconds: The time it took, testing included.
    """

    epoch: int
    loss: float
    train_top1: float
    top1: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a training is: the epochs that are done, and the steps and their sums in the one that is not."""

    epochs: tuple[EpochResult, ...] = ()
    steps: int = 0
    seen: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return ``step 3 of epoch 2``, or ``epoch 1`` where that has just ended."""
        ended = len(self.epochs)
        return f"step {self.steps} of epoch {ended + 1}" if self.steps else f"epoch {ended}"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A training's state between two steps.

    Attributes:
        model: The state dict, BatchNorm's statistics included.
        momentum: SGD's buffer of each parameter that has one.
        random: The random generator's state as the epoch began.
        scaler: The gradient scaler's state; empty but for fp16.
        position: How far it is.
    """

    model: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    random: Tensor
    scaler: Mapping[str, float] = field(default_factory=dict)
    position: Position


@dataclass(frozen=True)
class CheckpointFile:
    """A training's checkpoint.

    Attributes:
        path: Where it is.
        identity: What it is a checkpoint of.
        every: Steps between two; there is always one at the end of an epoch.
    """

    path: Path
    identity: RunIdentity
    every: int | None = None

    def read(self) -> Snapshot | None:
        """Return the state to go on from, or ``None`` if there is no checkpoint.

        Raises:
            UsageError: It is one of another training; the message says what is different.
            InputError: It can't be read.
        """
        if not self.path.exists():
            return None
        tensors, metadata = self._load()
        changes = self.identity.changes_from(metadata["identity"])
        if changes:
            raise UsageError(
                f"{self.path} is the checkpoint of another training: {'; '.join(changes)}. Give the same "
                "options to resume it, or --restart to discard it."
            )
        epochs = tuple(EpochResult(**epoch) for epoch in metadata["position"]["epochs"])
        return Snapshot(
            model=_part(tensors, "model."),
            momentum=_part(tensors, "momentum."),
            random=tensors["random"],
            scaler=metadata["scaler"],
            position=Position(**metadata["position"] | {"epochs": epochs}),
        )

    def write(self, snapshot: Snapshot) -> None:
        """Put ``snapshot`` in the place of the last one."""
        from safetensors.torch import save

        tensors = {f"model.{name}": tensor for name, tensor in snapshot.model.items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in snapshot.momentum.items()}
        tensors["random"] = snapshot.random
        metadata = {
            "form": _FORM,
            "identity": asdict(self.identity),
            "position": asdict(snapshot.position),
            "scaler": dict(snapshot.scaler),
        }
        write_bytes(self.path, save(tensors, {_KEY: json.dumps(metadata)}))

    def remove(self) -> None:
        """Remove it, if it is there, and what a kill in the middle of writing it left."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.part")):
            with suppress(FileNotFoundError):
                path.unlink()

    def _load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})[_KEY])
                if metadata["form"] != _FORM:
                    raise ValueError(f"form {metadata['form']}")
                return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
        except OSError as error:
            raise InputError(f"{self.path} can't be read: {error.strerror or error}.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path} is damaged, or not a checkpoint of this version of rexport; --restart discards it."
            ) from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
