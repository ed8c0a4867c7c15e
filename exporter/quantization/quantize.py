"""Writing the integers into the graph: QuantizeLinear and DequantizeLinear where the placement says.

A tensor becomes ``x → QuantizeLinear → DequantizeLinear → readers``; one that was only moved there (sliced, padded,
pooled by its maximum) is moved as integers, ``integers → Slice → DequantizeLinear → readers``. Raw images come as
integers, with a scale and a zero point of their own, and stay what they are. A weight is stored as
integers behind a DequantizeLinear, and a bias as int32 with the scale of the products that it is added to; with any
other scale ONNX Runtime would run the convolution in float without a word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import DataError, ModelFileError, UsageError, VerificationError
from rexport.model_file import Metadata, default_opset, model_hash, to_bytes
from rexport.passes._graph import add_initializer, constant, free_name, name_of, remembered_names
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
        UsageError: The table is of another model, or the target wants other integers than those of its raw images.
        VerificationError: The result is not valid ONNX (a defect of rexport).
    """
    require_float(model)
    if default_opset(model) < _PER_CHANNEL_FROM:
        raise ModelFileError(
            f"The model is of opset {default_opset(model)}, and INT8 per channel needs {_PER_CHANNEL_FROM} or later; "
            "convert it with rexport.model_file.with_opset first."
        )
    if table.model_sha256 != model_hash(model):
        raise UsageError("The calibration table is of another model; calibrate the very model that is quantized.")
    quantized = model.clone()
    placement = place(quantized)
    by_source = {
        source: _given_map(placement.given[source], target)
        if source in placement.given
        else _map_of(source, table, target)
        for source in placement.tensors.values()
    }
    maps = {name: by_source[source] for name, source in placement.tensors.items()}
    with remembered_names(quantized.graph):
        for layer in placement.layers:
            if layer.integer and layer.node.op_type in ("Conv", "Gemm"):
                _quantize_weights(layer.node, maps, target)
        _quantize_tensors(quantized.graph, placement, by_source)
    common.RemoveUnusedNodesPass()(quantized)
    _describe(quantized, table, target, placement)
    _check(quantized)
    return QuantizeResult(model=quantized, layers=tuple(_report(layer) for layer in placement.layers))


def require_float(model: ir.Model, path: Path | str = "The model") -> None:
    """Raise :class:`ModelFileError` for a model that has been quantized already; raw images alone do not count."""
    if any(
        node.op_type in ("QuantizeLinear", "QLinearConv")
        or (node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None)
        for node in model.graph
    ):
        raise ModelFileError(f"{path} is quantized already; quantize the float model that it was made from.")


def _map_of(tensor: str, table: CalibrationTable, target: Target) -> Quantization:
    if tensor not in table.ranges:
        raise DataError(f"The calibration table has no range for the tensor {tensor!r}.")
    return of_range(table.ranges[tensor], target.activations)


def _given_map(dequantize: ir.Node, target: Target) -> Quantization:
    """Return the map of integers that the model has already."""
    scale, zero_point = constant(dequantize.inputs[1]), constant(dequantize.inputs[2])
    assert scale is not None
    assert zero_point is not None
    if zero_point.dtype != target.activations.dtype:
        raise UsageError(
            f"The model takes {zero_point.dtype} images as they are, and the target {target.name} computes with "
            f"{np.dtype(target.activations.dtype)}; export the network without --raw-image for it."
        )
    return Quantization(scale.reshape(()), zero_point.reshape(()))


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


def _dequantized_input(node: ir.Node, index: int, role: str, integers: np.ndarray, chosen: Quantization) -> None:
    """Let ``node`` read ``integers`` through a DequantizeLinear as its input ``index``."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    old = node.inputs[index]
    assert old is not None
    name = f"{name_of(node)}.{role}"
    stored: list[ir.Value | None] = [
        add_initializer(graph, f"{name}{suffix}", array)
        for suffix, array in (
            ("_quantized", integers),
            ("_scale", chosen.scale),
            ("_zero_point", chosen.zero_point),
        )
    ]
    dequantize = _node(graph, "DequantizeLinear", stored, f"{name}_dequantized", like=old, axis=0)
    graph.insert_before(node, dequantize)
    node.replace_input_with(index, dequantize.outputs[0])


def _quantize_tensors(graph: ir.Graph, placement: Placement, maps: Mapping[str, Quantization]) -> None:
    constants = {
        source: (
            add_initializer(graph, f"{source}_scale", chosen.scale),
            add_initializer(graph, f"{source}_zero_point", chosen.zero_point),
        )
        for source, chosen in maps.items()
    }
    for value in [*graph.inputs, *(value for node in list(graph) for value in node.outputs)]:
        name = str(value.name)
        if name not in placement.tensors or name in placement.given:
            continue
        source = placement.tensors[name]
        scale, zero_point = constants[source]
        readers = [(usage.node, usage.idx) for usage in value.uses()]
        dequantize = _node(graph, "DequantizeLinear", [None, scale, zero_point], f"{name}_dequantized", like=value)
        if name == source:
            quantize_node = _node(graph, "QuantizeLinear", [value, scale, zero_point], f"{name}_quantized", like=value)
            _insert_after(graph, value.producer(), quantize_node)
            integers = quantize_node.outputs[0]
        else:
            integers = _move_integers(graph, value, zero_point)
        integers.type = zero_point.type
        dequantize.replace_input_with(0, integers)
        _insert_after(graph, integers.producer(), dequantize)
        for reader, index in readers:
            reader.replace_input_with(index, dequantize.outputs[0])


def _move_integers(graph: ir.Graph, value: ir.Value, zero_point: ir.Value) -> ir.Value:
    """Let the operator that moved ``value``, dequantized, move the integers instead; they share the zero point."""
    node = value.producer()
    assert node is not None
    assert node.inputs[0] is not None
    dequantize = node.inputs[0].producer()
    assert dequantize is not None
    node.replace_input_with(0, dequantize.inputs[0])
    if node.op_type == "Pad":  # with the integer for zero
        node.resize_inputs(max(3, len(node.inputs)))
        node.replace_input_with(2, zero_point)
    value.name = free_name(graph, f"{value.name}_quantized")
    return value


def _insert_after(graph: ir.Graph, node: ir.Node | None, new: ir.Node) -> None:
    """Insert ``new`` after ``node``, or as the first one where that is ``None``."""
    if node is None:
        graph.insert_before(graph[0], new)
    else:
        graph.insert_after(node, new)


def _node(
    graph: ir.Graph,
    op_type: str,
    inputs: list[ir.Value | None],
    output: str,
    *,
    like: ir.Value,
    axis: int | None = None,
) -> ir.Node:
    """Return a node that is not in the graph yet; its output gets a free name, and the shape and type of ``like``."""
    name = free_name(graph, output)
    node = ir.node(op_type, inputs, {} if axis is None else {"axis": axis}, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, like.shape, like.type
    return node


def _describe(model: ir.Model, table: CalibrationTable, target: Target, placement: Placement) -> None:
    described = {
        "target": target.name,
        "activations": f"{np.dtype(target.activations.dtype).name} per tensor",
        "weights": f"{np.dtype(target.weights.dtype).name} per channel, ±{target.weights.high}",
        "calibrator": "minmax",
        "calibration_images": table.images,
        "float_model_sha256": table.model_sha256,
        "float_layers": [str(layer.node.name) for layer in placement.layers if not layer.integer],
    }
    replace(Metadata.of(model), quantization=json.dumps(described)).write_to(model)


def _report(layer: Layer) -> LayerReport:
    return LayerReport(
        name=name_of(layer.node),
        op_type=layer.node.op_type,
        precision="int8" if layer.integer else "float32",
        why=layer.why,
    )


def _check(model: ir.Model) -> None:
    try:
        onnx.checker.check_model(to_bytes(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The quantized model is not valid ONNX: {error}") from error
