"""``--recover``: what is done so that INT8 loses less accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx_ir as ir

    from rexport.calibration import BadImage, CalibrationTable, Calibrator, Dataset
    from rexport.cli._calibration import Calibration
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import Recovered, Target

__all__ = ["Level", "RecoverChoice", "Recovering", "RecoveryDone", "print_recovery", "recovery_json"]

_MOST_IMAGES = 128  # that layers are observed on: more cost time, and change hardly a weight


class Level(StrEnum):
    """How much is done: nothing; what the calibration table allows; what a look at the images adds."""

    NONE = "none"
    EQUALIZE = "equalize"
    ADAROUND = "adaround"


RecoverChoice = Annotated[
    Level | None,
    typer.Option(
        "--recover",
        help="Against the loss of accuracy: nothing; channels scaled to use their integers, and projections made one "
        "with what they are added to; and weights rounded for what their layers read on --data. By default the last, "
        "without --data the second.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class RecoveryDone:
    """What was done at a ``level``: ``recovered`` for :func:`rexport.quantize`, with the images that were left out."""

    level: Level
    recovered: Recovered | None
    images: int
    seconds: float
    skipped: tuple[BadImage, ...]


@dataclass(frozen=True, kw_only=True)
class Recovering:
    """What was asked for; the images are those of calibration, in the same batches, but no more than 128."""

    level: Level
    samples: int
    batch: int
    skip_bad: bool
    threads: int | None

    @classmethod
    def parse(cls, level: Level | None, calibration: Calibration) -> Recovering:
        """Read ``--recover``, beside what calibration was asked to do.

        Raises:
            UsageError: There are no images to look at, or nothing looks at them.
        """
        if level is None:
            level = Level.EQUALIZE if calibration.data is None else Level.ADAROUND
        if level is Level.ADAROUND and calibration.data is None:
            raise UsageError(
                "--recover adaround rounds weights for what layers read on images, which a table does not hold; pass "
                "--data IMAGES too, or --recover equalize."
            )
        if level is not Level.ADAROUND and calibration.data is not None and calibration.tables:
            raise UsageError(
                f"--recover {level} needs nothing but the table, so --data means nothing beside --table; leave one "
                "of them out, or pass --recover adaround."
            )
        return cls(
            level=level,
            samples=min(calibration.samples, _MOST_IMAGES),
            batch=calibration.batch,
            skip_bad=calibration.skip_bad,
            threads=calibration.threads,
        )

    def run(
        self,
        model: ir.Model,
        table: CalibrationTable,
        images: Dataset | None,
        preprocessing: Preprocessing | None,
        *,
        target: Target,
        calibrator: Calibrator,
    ) -> RecoveryDone:
        """Do it, for the fused ``model``, with ``images`` that were opened with ``preprocessing``.

        Raises:
            DataError: The images can't be read.
        """
        from rexport.cli._console import progress
        from rexport.quantization import recover

        if self.level is Level.NONE:
            return RecoveryDone(level=self.level, recovered=None, images=0, seconds=0.0, skipped=())
        observed = None if self.level is Level.EQUALIZE or images is None else _Images(images, self)
        start = perf_counter()
        recovered = recover(
            model,
            table,
            target=target,
            calibrator=calibrator,
            images=observed,
            total=1 if observed is None else observed.total,
            preprocessing=None if observed is None else preprocessing,
            threads=self.threads,
            progress=progress,
        )
        return RecoveryDone(
            level=self.level,
            recovered=recovered,
            images=0 if observed is None else observed.total - len(observed.skipped),
            seconds=perf_counter() - start,
            skipped=() if observed is None else tuple(observed.skipped),
        )


class _Images:
    """Starts batches of images anew, and notes which of them can't be read."""

    def __init__(self, dataset: Dataset, asked: Recovering) -> None:
        self._dataset, self._asked = dataset, asked
        self.total = min(asked.samples, len(dataset))
        self.skipped: dict[BadImage, None] = {}

    def __call__(self) -> Iterator[np.ndarray]:
        asked = self._asked
        for one in self._dataset.batches(asked.batch, samples=asked.samples, skip_bad=asked.skip_bad):
            self.skipped |= dict.fromkeys(one.skipped)
            if len(one.images):
                yield one.images


def print_recovery(done: RecoveryDone) -> None:
    """Print what was done, and how long it took."""
    if done.recovered is None:
        return
    equalized = done.recovered.equalized
    parts = [f"{len(equalized.factors)} tensors equalized"]
    if equalized.joined:
        parts.append(f"{len(equalized.joined)} projections joined")
    if done.level is Level.ADAROUND:
        layers = len(done.recovered.weights)
        parts.append(f"weights of {layers} layers rounded for what they read on {done.images} images")
    print(f"recovered: {', '.join(parts)}, in {done.seconds:.1f} s")


def recovery_json(done: RecoveryDone) -> dict[str, Any]:
    """Return the same for a JSON document: the key ``recovery``."""
    return {
        "recovery": {
            "level": str(done.level),
            "tensors_equalized": 0 if done.recovered is None else len(done.recovered.equalized.factors),
            "projections_joined": [] if done.recovered is None else list(done.recovered.equalized.joined),
            "layers_rounded": [] if done.recovered is None else list(done.recovered.weights),
            "images": done.images,
            "seconds": done.seconds,
        }
    }
