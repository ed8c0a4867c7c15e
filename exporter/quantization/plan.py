"""The plan of a model's integers, made before any are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import ModelFileError
from rexport._onnx_proto import name_nodes
from rexport.passes._graph import constant, contents_of, input_at, name_of
from rexport.quantization.averages import write_padding_out
from rexport.quantization.layers import WEIGHTED
from rexport.quantization.maps import maps_of
from rexport.quantization.normalisation import write_as_convolutions
from rexport.quantization.placement import Placement, place
from rexport.quantization.schemes import rounded_up, smallest_weight_scale

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx_ir as ir

    from rexport.calibration import CalibrationTable, Calibrator
    from rexport.quantization.equalization import Equalized
    from rexport.quantization.schemes import Quantization
    from rexport.quantization.targets import Target

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan.

    Attributes:
        model: A copy of the float model, in the operators that the target has integer kernels for.
        placement: Which of its tensors and layers become integers.
        maps: The maps of the tensors whose ranges are used, by name.
    """

    model: ir.Model
    placement: Placement
    maps: Mapping[str, Quantization]

    def map_of(self, tensor: ir.Value | None) -> Quantization:
        """Return the map of a tensor that is stored as integers."""
        assert tensor is not None
        return self.maps[self.placement.tensors[str(tensor.name)]]


def plan(
    model: ir.Model,
    table: CalibrationTable,
    *,
    target: Target,
    calibrator: Calibrator,
    keep_float: Collection[str] = frozenset(),
    equalized: Equalized | None = None,
) -> Plan:
    """Plan the integers of ``model``, or of its ``equalized`` form.

    Raises:
        DataError: The table lacks a tensor.
        ModelFileError: A layer has weights that no integers stand for, or the target gets it wrong.
    """
    planned = (equalized.model if equalized else model).clone()
    name_nodes(planned)
    if target.group_multiple == 1:
        write_as_convolutions(planned.graph, keep_float=keep_float)
    if "AveragePool" in target.kernels:
        write_padding_out(planned.graph, target)
    placement = place(planned, target=target, keep_float=keep_float)
    maps = maps_of(placement, table, target=target, calibrator=calibrator, equalized=equalized)
    maps = {name: replace(map_, scale=rounded_up(map_.scale, target.rest)) for name, map_ in maps.items()}
    result = Plan(model=planned, placement=placement, maps=maps)
    for layer in placement.layers:
        if layer.integer and layer.node.op_type in WEIGHTED:
            _require_storable(layer.node, result.map_of(layer.node.inputs[0]))
    return result


def _require_storable(layer: ir.Node, read: Quantization) -> None:
    weight, bias = contents_of(layer.inputs[1]), constant(input_at(layer, 2))
    for array, role in ((weight, "weight"), (bias, "bias")):
        if array is not None and not np.isfinite(array).all():
            raise ModelFileError(
                f"The {role} of {name_of(layer)} has values that are not finite (NaN or infinite), so it "
                "can't be quantized; check the weights that the network was exported with."
            )
    largest = float(np.finfo(np.float32).max)
    if float(np.abs(weight).max(initial=0)) > largest / float(read.scale):
        raise ModelFileError(
            f"The products of the input and the weight of {name_of(layer)} overflow float32; check the "
            "weights that the network was exported with."
        )
    if bias is not None and np.max(smallest_weight_scale(bias, read.scale), initial=0) > largest:
        raise ModelFileError(
            f"The bias of {name_of(layer)} is too large for int32 at any scale of its weights; keep the layer in float."
        )
