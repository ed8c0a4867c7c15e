"""Calibration: pictures in, the range of every tensor out, in memory that does not grow with their number."""

from __future__ import annotations

from rexport.calibration.calibrate import calibrate, observed_tensors
from rexport.calibration.dataset import BadImage, Batch, Dataset
from rexport.calibration.datasets import open_dataset
from rexport.calibration.table import CalibrationTable, TensorRange

__all__ = [
    "BadImage",
    "Batch",
    "CalibrationTable",
    "Dataset",
    "TensorRange",
    "calibrate",
    "observed_tensors",
    "open_dataset",
]
