"""Writing the integers into the graph: QuantizeLinear and DequantizeLinear where the placement says.

A tensor becomes ``x → QuantizeLinear → DequantizeLinear → readers``, a weight is stored as integers behind a
DequantizeLinear, and a bias as int32 with the scale of the products that it is added to; with any other scale
ONNX Runtime would run the convolution in float without a word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import DataError, ModelFileError, UsageError, VerificationError
from rexport.model_file import Metadata, default_opset, model_hash, to_bytes
from rexport.passes._graph import add_initializer, constant
from rexport.quantization.placement import Layer, Placement, place
from rexport.quantization.schemes import Quantization, of_bias, of_range, of_weight, smallest_weight_scale

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rexport.calibration import CalibrationTable
    from rexport.quantization.targets import Target

__all__ = ["LayerReport", "QuantizeResult", "quantize", "require_float"]

_PER_CHANNEL_FROM = 13  # DequantizeLinear has had an axis since this opset


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What became of an operator that computes: ``precision`` is ``int8`` or ``float32``."""

    name: str
    op_type: str
    precision: str
    why: str


@dataclass(frozen=True, kw_only=True)
class QuantizeResult:
    """The quantized ``model``, and what became of each layer."""

    model: ir.Model
    layers: tuple[LayerReport, ...]


def quantize(model: ir.Model, table: CalibrationTable, *, target: Target) -> QuantizeResult:
    """Return an INT8 copy of ``model``.

    Args:
        model: A fused float model (see :func:`rexport.fuse`), of opset 13 or later.
        table: The ranges of its tensors (see :func:`rexport.calibrate`).
        target: What will run it.

    Raises:
        ModelFileError: It is quantized already, or of an older opset.
        UsageError: The table is of another model.
        VerificationError: The result is not valid ONNX (a defect of rexport).
    """
    require_float(model)
    if table.model_sha256 != model_hash(model):
        raise UsageError(
            "The calibration table is of another model; calibrate the very model that is quantized."
        )
    quantized = model.clone()
    placement = place(quantized)
    maps = {name: _map_of(name, source, table, target) for name, source in placement.tensors.items()}
    for layer in placement.layers:
        if layer.integer and layer.node.op_type in ("Conv", "Gemm"):
            _quantize_weights(layer.node, maps, target)
    _quantize_tensors(quantized.graph, maps)
    common.RemoveUnusedNodesPass()(quantized)
    _describe(quantized, table, target, placement)
    _check(quantized)
    return QuantizeResult(model=quantized, layers=tuple(_report(layer) for layer in placement.layers))


def require_float(model: ir.Model, path: Path | str = "The model") -> None:
    """Raise :class:`ModelFileError` for a model that can't be quantized: quantized already, or too old."""
    if any(node.op_type in ("QuantizeLinear", "QLinearConv", "DequantizeLinear") for node in model.graph):
        raise ModelFileError(f"{path} is quantized already; quantize the float model that it was made from.")
    if default_opset(model) < _PER_CHANNEL_FROM:
        raise ModelFileError(
            f"{path} is of opset {default_opset(model)}, and INT8 per channel needs {_PER_CHANNEL_FROM} or later; "
            "export it again, or convert it with onnx.version_converter."
        )


def _map_of(name: str, source: str, table: CalibrationTable, target: Target) -> Quantization:
    if source not in table.ranges:
        raise DataError(
            f"The calibration table has no range for the tensor {source!r} (needed for {name!r})."
        )
    return of_range(table.ranges[source], target.activations)


def _quantize_weights(node: ir.Node, maps: Mapping[str, Quantization], target: Target) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    assert node.inputs[0] is not None
    input_scale = maps[str(node.inputs[0].name)].scale
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None
    smallest = 0.0 if bias is None else smallest_weight_scale(bias, input_scale)
    weight_map, integers = of_weight(weight, target.weights, smallest_scale=smallest)
    _dequantized_input(node, 1, "weight", integers, weight_map)
    if bias is not None:
        bias_map, integers = of_bias(bias, input_scale, weight_map.scale)
        _dequantized_input(node, 2, "bias", integers, bias_map)


def _dequantized_input(
    node: ir.Node, index: int, role: str, integers: np.ndarray, chosen: Quantization
) -> None:
    """Let ``node`` read ``integers`` through a DequantizeLinear as its input ``index``."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    old = node.inputs[index]
    assert old is not None
    name = f"{node.name or node.outputs[0].name}.{role}"
    stored = [
        add_initializer(graph, f"{name}{suffix}", array)
        for suffix, array in (
            ("_quantized", integers),
            ("_scale", chosen.scale),
            ("_zero_point", chosen.zero_point),
        )
    ]
    dequantize = _node("DequantizeLinear", stored, f"{name}_dequantized", like=old, axis=0)
    graph.insert_before(node, dequantize)
    node.replace_input_with(index, dequantize.outputs[0])


def _quantize_tensors(graph: ir.Graph, maps: Mapping[str, Quantization]) -> None:
    values = [*graph.inputs, *(value for node in list(graph) for value in node.outputs)]
    stored: dict[int, tuple[ir.Value, ir.Value]] = {}  # tensors that share a map share its initializers
    for value in values:
        name = str(value.name)
        if name not in maps:
            continue
        chosen = maps[name]
        scale, zero_point = stored.setdefault(
            id(chosen.scale),
            (
                add_initializer(graph, f"{name}_scale", chosen.scale),
                add_initializer(graph, f"{name}_zero_point", chosen.zero_point),
            ),
        )
        readers = [(usage.node, usage.idx) for usage in value.uses()]
        quantize_node = _node("QuantizeLinear", [value, scale, zero_point], f"{name}_quantized", like=value)
        quantize_node.outputs[0].type = ir.TensorType(ir.DataType(zero_point.dtype or ir.DataType.UINT8))
        dequantize = _node(
            "DequantizeLinear",
            [quantize_node.outputs[0], scale, zero_point],
            f"{name}_dequantized",
            like=value,
        )
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], [quantize_node, dequantize])
        else:
            graph.insert_after(producer, [quantize_node, dequantize])
        for reader, index in readers:
            reader.replace_input_with(index, dequantize.outputs[0])


def _node(
    op_type: str, inputs: list[ir.Value], output: str, *, like: ir.Value, axis: int | None = None
) -> ir.Node:
    node = ir.node(op_type, inputs, {} if axis is None else {"axis": axis}, name=output)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = output, like.shape, like.type
    return node


def _describe(model: ir.Model, table: CalibrationTable, target: Target, placement: Placement) -> None:
    Metadata(
        quantization=json.dumps(
            {
                "target": target.name,
                "activations": f"{np.dtype(target.activations.dtype).name} per tensor",
                "weights": f"{np.dtype(target.weights.dtype).name} per channel, ±{target.weights.high}",
                "calibrator": "minmax",
                "calibration_images": table.images,
                "float_model_sha256": table.model_sha256,
                "float_layers": [str(layer.node.name) for layer in placement.layers if not layer.integer],
            }
        )
    ).write_to(model)


def _report(layer: Layer) -> LayerReport:
    return LayerReport(
        name=str(layer.node.name or layer.node.outputs[0].name),
        op_type=layer.node.op_type,
        precision="int8" if layer.integer else "float32",
        why=layer.why,
    )


def _check(model: ir.Model) -> None:
    try:
        onnx.checker.check_model(to_bytes(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The quantized model is not valid ONNX: {error}") from error
