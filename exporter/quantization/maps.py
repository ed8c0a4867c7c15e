"""The map of every stored tensor: from its calibrated range, or from the integers that the model has already."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError
from rexport.calibration import TensorRange, choose_range
from rexport.passes._graph import contents_of
from rexport.quantization.schemes import Quantization, of_range

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from rexport.calibration import CalibrationTable, Calibrator
    from rexport.quantization.equalization import Equalized
    from rexport.quantization.placement import Placement
    from rexport.quantization.targets import Target

__all__ = ["maps_of"]


def maps_of(
    placement: Placement,
    table: CalibrationTable,
    *,
    target: Target,
    calibrator: Calibrator,
    equalized: Equalized | None = None,
) -> Mapping[str, Quantization]:
    """Return the map of each tensor whose range stored tensors use, by its name.

    Args:
        placement: Which tensors are stored.
        table: The statistics of the float model.
        target: The target, which determines the integers.
        calibrator: How ranges follow from the statistics.
        equalized: How the model's tensors were scaled since, if they were.

    Raises:
        DataError: The table lacks a tensor.
    """
    scaled_as = {} if equalized is None else equalized.scaled_as

    @cache
    def map_of(source: str) -> Quantization:
        if reference := scaled_as.get(source):
            return map_of(placement.tensors.get(reference, reference))
        if source in placement.dequantized:
            return _of_integers(placement.dequantized[source], target)
        if source in table.tensors:
            return of_range(_range_of(source, table, target, calibrator, equalized), target.activations)
        raise DataError(f"The calibration table has no statistics of the tensor {source!r}.")

    return {source: map_of(source) for source in placement.tensors.values()}


def _range_of(
    tensor: str, table: CalibrationTable, target: Target, calibrator: Calibrator, equalized: Equalized | None
) -> TensorRange:
    integers = target.activations
    calibrated = choose_range(table.tensors[tensor], calibrator, steps=integers.steps, symmetric=integers.symmetric)
    return equalized.range_of(tensor, table, calibrated) if equalized else calibrated


def _of_integers(dequantize: ir.Node, target: Target) -> Quantization:
    """Return the map of integers that the model has already, in the target's type.

    uint8 with a zero point z and int8 with z − 128 say the same; integers without a zero point have to cover the range.
    """
    scale, zero_point = (contents_of(value).reshape(()) for value in dequantize.inputs[1:3])
    limits, integers = np.iinfo(zero_point.dtype), target.activations
    if zero_point.dtype == integers.dtype:
        return Quantization(scale, zero_point)
    if integers.symmetric:
        ends = (float(scale) * (end - int(zero_point)) for end in (limits.min, limits.max))
        return of_range(TensorRange(*ends), integers)
    return Quantization(scale, np.asarray(int(zero_point) - limits.min + integers.low, integers.dtype))
