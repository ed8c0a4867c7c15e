"""Calibration tables of given ranges, and models that were calibrated."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rexport.calibration import CalibrationTable, TensorStatistics
from rexport.model_file import model_hash
from tests._networks import export_once
from tests._products import Products

if TYPE_CHECKING:
    import onnx_ir as ir


def table_of(model: ir.Model, **ranges: tuple[float, float]) -> CalibrationTable:
    """Return the table of a model whose tensors were seen at these two ends alone."""
    seen = {name: TensorStatistics.of(np.float32([[ends]])) for name, ends in ranges.items()}
    return CalibrationTable(model_sha256=model_hash(model), images=1, tensors=seen)


def exported(name: str) -> ir.Model:
    """Return a network of the zoo for pictures of 32 pixels, exported and fused, with statistics as after training."""
    return _exported(name).clone()


@cache
def _exported(name: str) -> ir.Model:
    return export_once(Products.of_run, name).model


def pictures(count: int, size: int = 32) -> np.ndarray:
    """Return standard normal images of shape (count, 3, size, size)."""
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)


def sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the ratio of signal to noise, 10 log₁₀ (Σ r² / Σ (r − y)²)."""
    signal = np.square(expected.astype(np.float64)).sum()
    noise = np.square(expected.astype(np.float64) - actual).sum()
    return float(10 * np.log10(signal / noise)) if noise else float("inf")
