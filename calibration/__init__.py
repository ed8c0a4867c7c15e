"""Calibration: pictures in, the range of every tensor out, in memory that does not grow with their number."""

from __future__ import annotations

from rexport.calibration.calibrate import calibrate
from rexport.calibration.calibrate_dataset import DatasetCalibration, calibrate_dataset
from rexport.calibration.calibrator import Calibrator, Method, choose_range, costlier_than_minmax
from rexport.calibration.dataset import BadImage, Batch, Dataset, ViewBatch
from rexport.calibration.datasets import open_dataset
from rexport.calibration.histogram import Histogram
from rexport.calibration.observation import observed_tensors
from rexport.calibration.statistics import TensorRange, TensorStatistics
from rexport.calibration.table import CalibrationTable
from rexport.calibration.views import CenterCrop, TenCrops, Views, WholePictures, parse_views

__all__ = [
    "BadImage",
    "Batch",
    "CalibrationTable",
    "Calibrator",
    "CenterCrop",
    "Dataset",
    "DatasetCalibration",
    "Histogram",
    "Method",
    "TenCrops",
    "TensorRange",
    "TensorStatistics",
    "ViewBatch",
    "Views",
    "WholePictures",
    "calibrate",
    "calibrate_dataset",
    "choose_range",
    "costlier_than_minmax",
    "observed_tensors",
    "open_dataset",
    "parse_views",
]
