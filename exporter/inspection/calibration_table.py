"""A calibration table: its model, its data, and the range that each calibrator would choose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rexport.calibration import CalibrationTable, Calibrator, choose_range
from rexport.inspection.report import FileReport, Table

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.calibration.statistics import TensorRange, TensorStatistics

__all__ = ["describe", "recognises"]

_CALIBRATORS = (Calibrator.MINMAX, Calibrator.AVERAGE, Calibrator.PERCENTILE, Calibrator.ENTROPY, Calibrator.MSE)
_STEPS = 255  # of uint8
_SCHEMA = re.compile(rb'"schema":\s*"rexport\.calibration/')


def recognises(path: Path, head: bytes) -> bool:  # noqa: ARG001
    """Say whether a file that begins with ``head`` is a calibration table."""
    return head.lstrip().startswith(b"{") and _SCHEMA.search(head) is not None


def describe(path: Path) -> FileReport:
    """Describe a calibration table.

    Raises:
        DataError: It is broken.
    """
    table = CalibrationTable.load(path)
    ranges = {name: _ranges(statistics) for name, statistics in table.tensors.items()}
    columns = ("tensor", *map(str, _CALIBRATORS))
    rows = tuple(
        (name, *(f"{interval.low:.4g} … {interval.high:.4g}" for interval in by_calibrator.values()))
        for name, by_calibrator in ranges.items()
    )
    document = {
        "model_sha256": table.model_sha256,
        "data_sha256": table.data_sha256,
        "images": table.images,
        "batch": table.batch,
        "versions": list(table.versions),
        "tensors": {
            name: {key: [interval.low, interval.high] for key, interval in by_calibrator.items()}
            for name, by_calibrator in ranges.items()
        },
    }
    return FileReport(
        kind="calibration",
        facts=(
            ("table", f"{len(table.tensors)} tensors over {table.images} images, {table.batch} at a time"),
            ("model", f"sha256 {table.model_sha256}"),
            ("images", f"sha256 {table.data_sha256}"),
            ("made by", ", ".join(table.versions) or "unknown"),
        ),
        tables=(Table(title="Range of uint8 by calibrator", columns=columns, rows=rows),),
        document=document,
    )


def _ranges(statistics: TensorStatistics) -> dict[str, TensorRange]:
    return {str(way): choose_range(statistics, way, steps=_STEPS, symmetric=False) for way in _CALIBRATORS}
