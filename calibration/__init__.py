"""Calibration: pictures in, the range of every tensor out, in memory that does not grow with their number."""

from __future__ import annotations

from rexport.calibration.calibrate import calibrate, observed_tensors
from rexport.calibration.dataset import BadImage, Batch, Dataset, ViewBatch
from rexport.calibration.datasets import open_dataset
from rexport.calibration.table import CalibrationTable, TensorRange
from rexport.calibration.views import CenterCrop, TenCrops, Views, WholePictures

__all__ = [
    "BadImage",
    "Batch",
    "CalibrationTable",
    "CenterCrop",
    "Dataset",
    "TenCrops",
    "TensorRange",
    "ViewBatch",
    "Views",
    "WholePictures",
    "calibrate",
    "observed_tensors",
    "open_dataset",
]
