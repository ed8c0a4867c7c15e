"""The networks that are compared on, and their files: float models, and the pictures for them as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.studies._commands import rexport
from benchmarks.studies._random_weights import write_random_weights
from rexport._errors import DataError, UsageError
from rexport._files import atomic_path
from rexport.calibration import open_dataset
from rexport.model_file import Metadata, load

__all__ = ["CALIBRATION", "FLOAT", "TEST", "Network"]

FLOAT = {"fused": "fp32.onnx", "plain": "plain.onnx"}
CALIBRATION, TEST = "calibration.npy", "test.npz"
_RANDOM = "random.safetensors"
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its pictures.

    Attributes:
        name: Of the zoo, or a specification in brackets.
        weights: Trained ones; without them they are random, and good for speed alone.
        data: With weights, ``calibration/`` and ``test/`` with a folder per class in each; without, a flat folder.
    """

    name: str
    weights: Path | None
    data: Path

    @classmethod
    def trained(cls, text: str) -> Network:
        """Read ``NETWORK:WEIGHTS:DATA``.

        Raises:
            UsageError: It is something else.
        """
        parts = text.rsplit(":", 2)
        if len(parts) != 3:
            raise UsageError(f"{text}: expected NETWORK:WEIGHTS:DATA, such as cifar_resnet20:resnet20.th:cifar10.")
        return cls(name=parts[0], weights=Path(parts[1]).resolve(), data=Path(parts[2]).resolve())

    @property
    def label(self) -> str:
        """What it is called in the results."""
        return self.name if self.weights is None else f"{self.weights.stem} on {self.data.name}"

    def prepare(self, folder: Path, *, samples: int) -> Path:
        """Write what is missing of the files to a folder of its own in ``folder``, and return that.

        The float models have the same weights, also where they are random.

        Args:
            folder: Where all networks' folders lie.
            samples: Pictures to calibrate with. Without labels as many others, if there are, are those to compare on.

        Raises:
            DataError: There are not two pictures.
        """
        home = folder / self.label.replace(" ", "-")
        home.mkdir(parents=True, exist_ok=True)
        weights = self.weights or home / _RANDOM
        if not weights.exists():
            write_random_weights(self.name, weights)
        for kind, extra in (("fused", ()), ("plain", ("--no-fuse",))):
            if not (home / FLOAT[kind]).exists():
                rexport("onnx", self.name, "--weights", str(weights), *extra, "-o", FLOAT[kind], cwd=home)
        if not (home / TEST).exists():
            self._write_pictures(home, samples)
        return home

    def _write_pictures(self, home: Path, samples: int) -> None:
        preprocessing = Metadata.of(load(home / FLOAT["fused"])).preprocessing
        assert preprocessing is not None
        if self.weights is None:
            batches = open_dataset(self.data, preprocessing).batches(_BATCH, samples=2 * samples)
            every = np.concatenate([batch.images for batch in batches])
            if len(every) < 2:
                raise DataError(f"{self.data} has one picture; one to calibrate with and one to compare on are needed.")
            images, tested, labels = every[::2], every[1::2], []
        else:
            calibration = open_dataset(self.data / "calibration", preprocessing).batches(_BATCH, samples=samples)
            images = np.concatenate([batch.images for batch in calibration])
            test = list(open_dataset(self.data / "test", preprocessing).batches(_BATCH))
            tested = np.concatenate([batch.images for batch in test])
            labels = [batch.labels for batch in test if batch.labels is not None]
        with atomic_path(home / CALIBRATION) as path, path.open("wb") as file:
            np.save(file, images)
        with atomic_path(home / TEST) as path, path.open("wb") as file:
            if labels:
                np.savez(file, images=tested, labels=np.concatenate(labels))
            else:
                np.savez(file, images=tested)
