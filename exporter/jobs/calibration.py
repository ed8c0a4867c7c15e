"""The statistics of a model's tensors, and what is done with them and pictures against the loss of accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rexport._errors import UsageError
from rexport._files import write_text
from rexport.calibration import CalibrationTable, calibrate_dataset, costlier_than_minmax
from rexport.choices import Recovery
from rexport.model_file import model_hash
from rexport.quantization import recover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from rexport._progress import Note, Progress
    from rexport.calibration import BadImage, Dataset
    from rexport.feeds import Feed
    from rexport.jobs.quantize import QuantizeRequest
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import Recovered

__all__ = ["RECOVERY_PICTURES", "RecoveryResult", "calibrate", "recover_accuracy"]

RECOVERY_PICTURES = 128
"""The most that layers are observed on: more cost time, and change hardly a weight."""
_FEW = 32  # pictures to calibrate with


@dataclass(frozen=True, kw_only=True)
class RecoveryResult:
    """What was done against the loss of accuracy at a ``level``, on how many ``images``, in how many ``seconds``."""

    level: Recovery
    recovered: Recovered | None = None
    images: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        document = {"level": str(self.level), "tensors_equalized": 0, "projections_joined": [], "layers_rounded": []}
        if self.recovered is not None:
            equalized = self.recovered.equalized
            document |= {
                "tensors_equalized": len(equalized.factors),
                "projections_joined": list(equalized.joined),
                "layers_rounded": list(self.recovered.weights),
            }
        return document | {"images": self.images, "seconds": self.seconds}


def calibrate(
    request: QuantizeRequest, model: ir.Model, pictures: Dataset | None, progress: Progress, note: Note
) -> tuple[CalibrationTable, tuple[BadImage, ...]]:
    """Return the table of ``model``, from files or by running ``pictures``, with those that were left out.

    Raises:
        UsageError: A table is of another model.
        DataError: A table or pictures can't be read, or a tensor takes values that are not finite.
    """
    tables = [_read_table(path, model) for path in request.tables]
    skipped: tuple[BadImage, ...] = ()
    if not tables:
        assert pictures is not None
        calibration = calibrate_dataset(
            model,
            pictures,
            batch=request.batch,
            samples=request.samples,
            skip_bad=request.skip_bad,
            workers=request.workers,
            progress=progress,
        )
        if calibration.resumed:
            note(f"{calibration.resumed} of the images had been run before an interruption.")
        tables, skipped = [calibration.table], calibration.skipped
    table = reduce(CalibrationTable.merge, tables)
    if table.images < _FEW:
        note(f"only {table.images} images to calibrate with; a few hundred give steadier ranges.")
    if request.save_table is not None:
        write_text(request.save_table, table.to_json())
    _note_costly_ranges(request, table, note)
    return table, skipped


def recover_accuracy(
    request: QuantizeRequest,
    model: ir.Model,
    table: CalibrationTable,
    pictures: Dataset | None,
    preprocessing: Preprocessing | None,
    progress: Progress,
) -> tuple[RecoveryResult, tuple[BadImage, ...]]:
    """Return what was done against the loss of accuracy, with the pictures that were left out.

    Raises:
        DataError: The pictures can't be read.
    """
    level = request.recovery_level
    if level is Recovery.NONE:
        return RecoveryResult(level=level), ()
    start = perf_counter()
    recover_with = partial(
        recover,
        model,
        table,
        target=request.target,
        calibrator=request.calibrator,
        threads=request.threads,
        progress=progress,
    )
    if level is not Recovery.ADAROUND or pictures is None:
        return RecoveryResult(level=level, recovered=recover_with(), seconds=perf_counter() - start), ()
    observed = _Observed(pictures, request)
    recovered = recover_with(images=observed, total=observed.total, preprocessing=preprocessing)
    images, seconds = observed.total - len(observed.skipped), perf_counter() - start
    return RecoveryResult(level=level, recovered=recovered, images=images, seconds=seconds), tuple(observed.skipped)


class _Observed:
    """Starts batches of the pictures that layers are observed on anew, and notes which of them can't be read."""

    def __init__(self, pictures: Dataset, request: QuantizeRequest) -> None:
        self._pictures, self._request = pictures, request
        self._samples = min(request.samples, RECOVERY_PICTURES)
        self.total = min(self._samples, len(pictures))
        self.skipped: dict[BadImage, None] = {}

    def __call__(self) -> Iterator[Feed]:
        request = self._request
        for batch in self._pictures.batches(request.batch, samples=self._samples, skip_bad=request.skip_bad):
            self.skipped |= dict.fromkeys(batch.skipped)
            if len(batch):
                yield batch.feed


def _note_costly_ranges(request: QuantizeRequest, table: CalibrationTable, note: Note) -> None:
    """Say where the calibrator loses much more of the very pictures that it chose for than keeping all values does."""
    integers = request.target.activations
    costs = costlier_than_minmax(table, request.calibrator, steps=integers.steps, symmetric=integers.symmetric)
    if costs:
        tensor, times = next(iter(costs.items()))
        note(
            f"--calibrator {request.calibrator} has much more squared error than minmax on {len(costs)} of "
            f"{len(table.tensors)} tensors ({times:.0f} times as much on {tensor}); minmax suits these images better."
        )


def _read_table(path: Path, model: ir.Model) -> CalibrationTable:
    table = CalibrationTable.load(path)
    if table.model_sha256 != model_hash(model):
        raise UsageError(
            f"{path} is the calibration table of another model (or another version of rexport fused it); pass the "
            "model that it was made with, or --data to calibrate this one."
        )
    return table
