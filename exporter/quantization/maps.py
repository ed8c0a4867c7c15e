"""The map of every stored tensor: from what calibration saw, or from the integers that the model has already."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError
from rexport.calibration import TensorRange, choose_range
from rexport.passes._graph import constant
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
    """Return the map of each tensor whose range others use, by its name.

    Args:
        placement: Which tensors are stored.
        table: The statistics of the float model.
        target: Whose integers they are.
        calibrator: How ranges follow from the statistics.
        equalized: How the model's tensors were scaled since, if they were.

    Raises:
        DataError: The table lacks a tensor.
    """
    scaled_as = {} if equalized is None else equalized.scaled_as

    @cache
    def map_of(source: str) -> Quantization:
        if (other := scaled_as.get(source)) is not None:
            return map_of(placement.tensors.get(other, other))
        if source in placement.given:
            return _given(placement.given[source], target)
        if source in table.tensors:
            return of_range(_range_of(source, table, target, calibrator, equalized), target.activations)
        raise DataError(f"The calibration table has no statistics of the tensor {source!r}.")

    return {source: map_of(source) for source in placement.tensors.values()}


def _range_of(
    tensor: str, table: CalibrationTable, target: Target, calibrator: Calibrator, equalized: Equalized | None
) -> TensorRange:
    integers = target.activations
    seen = table.tensors[tensor]
    chosen = choose_range(seen, calibrator, steps=integers.steps, symmetric=integers.symmetric)
    return chosen if equalized is None else equalized.range_of(tensor, table, chosen)


def _given(dequantize: ir.Node, target: Target) -> Quantization:
    """Return the map of integers that the model has already; where the target takes others, those of the same numbers.

    uint8 with a zero point z and int8 with z − 128 say the same; integers without a zero point have to cover the range.
    """
    scale, zero_point = constant(dequantize.inputs[1]), constant(dequantize.inputs[2])
    assert scale is not None
    assert zero_point is not None
    scale, zero_point = scale.reshape(()), zero_point.reshape(())
    given, wanted = np.iinfo(zero_point.dtype), target.activations
    if zero_point.dtype == wanted.dtype:
        return Quantization(scale, zero_point)
    if wanted.symmetric:
        ends = (float(scale) * (end - int(zero_point)) for end in (given.min, given.max))
        return of_range(TensorRange(*ends), wanted)
    return Quantization(scale, np.asarray(int(zero_point) - given.min + wanted.low, wanted.dtype))
