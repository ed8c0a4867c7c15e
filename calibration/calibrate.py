"""Running pictures through a model and collecting statistics of the values of every tensor.

The statistics are reduced in the graph (see :mod:`rexport.calibration.probes`), so no activation is kept: memory is
that of two batches, whatever the number of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._progress import Progress, silent
from rexport.calibration.observation import Observation, Observer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from rexport.calibration.table import CalibrationTable
    from rexport.feeds import Feed

__all__ = ["calibrate"]


def calibrate(
    model: ir.Model,
    batches: Iterable[Feed],
    *,
    total: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Run ``batches`` through ``model`` in ONNX Runtime and return the statistics of every watched tensor.

    Args:
        model: A float model, of opset 13 or later. Quantize the same model with the table, so fuse it first.
        batches: What it takes, of any number of examples.
        total: The number of images, for the progress bar's ETA.
        threads: By default one per usable core.
        progress: Reports every batch.

    Raises:
        DataError: There are no batches, or a tensor takes values that are not finite.
        ModelFileError: The model is of an older opset, or takes no images.
    """
    observer = Observer(Observation.of(model, threads=threads))
    with progress("calibrating", total) as advance:
        return observer.observe(batches, advance=advance)
