"""Calibrating with a data set in shards, on any workers; an interrupted run continues where it stopped."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxruntime

from rexport._progress import Progress, silent
from rexport._version import __version__
from rexport.calibration.checkpoint import Checkpoint, Finished
from rexport.calibration.decoding import UnreadableError
from rexport.calibration.observation import Observation
from rexport.calibration.sharding import CalibrateShard, Shard, name_all_bad, shards_of
from rexport.calibration.workers import choose_workers
from rexport.model_inputs import fixed_batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from rexport.calibration.dataset import BadImage, Dataset
    from rexport.calibration.table import CalibrationTable
    from rexport.calibration.workers import Workers

__all__ = ["DatasetCalibration", "calibrate_dataset"]


@dataclass(frozen=True, kw_only=True)
class DatasetCalibration:
    """The result.

    Attributes:
        table: The table of all usable images.
        skipped: The unusable ones.
        resumed: How many images an interrupted run had finished before.
    """

    table: CalibrationTable
    skipped: tuple[BadImage, ...]
    resumed: int


def calibrate_dataset(
    model: ir.Model,
    dataset: Dataset,
    *,
    batch: int = 4,
    samples: int | None = None,
    skip_bad: bool = False,
    workers: Workers | None = None,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> DatasetCalibration:
    """Run the images of ``dataset`` through ``model`` and return the statistics of every watched tensor.

    The table is the same to the bit whatever the workers, their number and interruptions, as long as the
    workers' processors, the version of ONNX Runtime and its number of threads are: images always run in the same
    batches, and tables add up exactly.

    Args:
        model: As for :func:`calibrate`.
        dataset: The images.
        batch: How many run at a time; a model's fixed batch overrides it.
        samples: How many to use, evenly spread; by default all.
        skip_bad: Whether to go on without images that can't be read.
        workers: Where the work runs; by default in this process, on all cores.
        checkpoints: The folder of the checkpoint; by default in the user's cache folder.
        progress: Reports every shard of about 64 images.

    Raises:
        DataError: Images can't be read, or a tensor takes values that are not finite.
        ModelFileError: The model is of an older opset than 13, or takes no images.
        RexportError: Workers are lost again and again.
    """
    workers = workers or choose_workers()
    batch = fixed_batch(model) or batch
    observation = Observation.of(model, threads=workers.threads)
    shards = shards_of(dataset, batch=batch, samples=samples)
    checkpoint = Checkpoint(_key(observation, shards, batch), checkpoints)
    resumed = sum(len(shards[index].dataset) for index in checkpoint.finished.shards)
    total = sum(len(shard.dataset) for shard in shards)
    remaining = [index for index in range(len(shards)) if index not in checkpoint.finished.shards]
    work = CalibrateShard(observation=observation, batch=batch)
    with progress("calibrating", total) as advance, checkpoint:
        advance(resumed)
        with closing(workers.map(work, [shards[index] for index in remaining])) as results:
            for position, result in results:
                index = remaining[position]
                if result.bad and not skip_bad:
                    name_all_bad(dataset.batches(batch, samples=samples), result.bad, total)
                checkpoint.add(index, result.table, result.bad)
                advance(len(shards[index].dataset))
    return _result(checkpoint.finished, resumed, total)


def _result(finished: Finished, resumed: int, total: int) -> DatasetCalibration:
    bad = tuple(sorted(finished.bad, key=lambda image: image.path))
    if finished.table is None:
        raise UnreadableError(bad, total)
    return DatasetCalibration(table=finished.table, skipped=bad, resumed=resumed)


def _key(observation: Observation, shards: Sequence[Shard], batch: int) -> str:
    """Return the key of a calibration: a hash of everything that its table depends on."""
    parts = (
        observation.model_sha256,
        observation.watched,
        observation.threads,
        [(shard.before, shard.dataset.fingerprint()) for shard in shards],
        batch,
        onnxruntime.__version__,
        __version__,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
