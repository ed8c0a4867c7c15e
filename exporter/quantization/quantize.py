"""Writing the integers into the graph: QuantizeLinear and DequantizeLinear where the placement says.

A tensor becomes ``x → QuantizeLinear → DequantizeLinear → readers``; one that was only moved (sliced, padded, pooled by
its maximum) is moved as integers, ``integers → Slice → DequantizeLinear → readers``. Raw images are integers already,
with their own scale and zero point, and stay as they are. A weight is stored as integers behind a DequantizeLinear, and
a bias as int32 with the scale of the products that it is added to; with any other scale ONNX Runtime would silently run
the convolution in float.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import ModelFileError, QuantizedModelError, UsageError, VerificationError
from rexport.calibration import Calibrator
from rexport.model_file import Metadata, default_opset, model_hash, to_bytes
from rexport.passes._graph import (
    add_initializer,
    constant,
    contents_of,
    free_name,
    graph_of,
    input_at,
    name_of,
    producer_of,
    remembered_names,
    replace_initializer,
)
from rexport.passes._quantized import integer_operators
from rexport.passes.float16 import require_float32, with_float16
from rexport.quantization.float_layers import average_in_float, dequantize_per_channel
from rexport.quantization.layers import WEIGHTED, Layer, dequantizes_tensor, output_axis
from rexport.quantization.pixels import compute_pixels
from rexport.quantization.plan import Plan, plan
from rexport.quantization.schemes import Quantization, of_bias, of_weight, smallest_weight_scale
from rexport.quantization.targets import ONNX_RUNTIME, Stored

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from rexport.calibration import CalibrationTable
    from rexport.quantization.placement import Placement
    from rexport.quantization.recovery import Recovered
    from rexport.quantization.rounding import RoundedWeight
    from rexport.quantization.targets import Target

__all__ = ["LayerReport", "QuantizedModel", "quantize", "require_float"]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The ``precision`` of an operator that computes (``int8``, ``float16`` or ``float32``), and the reason for it."""

    name: str
    op_type: str
    precision: str
    why: str


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """The quantized ``model``, and the precision of each layer."""

    model: ir.Model
    layers: tuple[LayerReport, ...]


def quantize(
    model: ir.Model,
    table: CalibrationTable,
    *,
    target: Target,
    calibrator: Calibrator = Calibrator.MINMAX,
    keep_float: Collection[str] = frozenset(),
    recovered: Recovered | None = None,
) -> QuantizedModel:
    """Return an INT8 copy of ``model``.

    Args:
        model: A fused float model (see :func:`rexport.passes.fuse`), of opset 13 or later.
        table: The statistics of its tensors (see :func:`rexport.calibrate`).
        target: The runtime and processor that will run it.
        calibrator: How ranges follow from the statistics.
        keep_float: The names of layers (nodes) that stay in float.
        recovered: The result of :func:`recover` for the same model, table, target and calibrator, for more accuracy.

    Raises:
        ModelFileError: It is quantized already, or of an older opset.
        UsageError: The table is of another model, or there is no layer of a name in ``keep_float``.
        VerificationError: The result is not valid ONNX (a defect of rexport).
    """
    _require_inputs(model, table, target)
    equalized, weights = (recovered.equalized, recovered.weights) if recovered else (None, {})
    planned = plan(model, table, target=target, calibrator=calibrator, keep_float=keep_float, equalized=equalized)
    quantized, placement = planned.model, planned.placement
    _require_layers(keep_float, placement, joined=equalized is not None and bool(equalized.joined))
    _write_integers(planned, target, weights)
    _describe(quantized, table, target, placement, calibrator, recovered)
    why_float32 = {}
    if target.rest is np.float16:
        largest = {name: max(-tensor.low, tensor.high) for name, tensor in table.tensors.items()}
        half = with_float16(quantized, largest=largest)
        quantized, why_float32 = half.model, {layer.name: layer.why for layer in half.kept}
    _check(quantized)
    layers = tuple(_report(layer, target, why_float32.get(name_of(layer.node))) for layer in placement.layers)
    return QuantizedModel(model=quantized, layers=layers)


def _require_inputs(model: ir.Model, table: CalibrationTable, target: Target) -> None:
    require_float(model)
    if default_opset(model) < target.opset:
        raise ModelFileError(
            f"The model has opset {default_opset(model)}, and the target {target.name} needs {target.opset} "
            "or later; convert it with rexport.passes.raise_opset first."
        )
    if table.model_sha256 != model_hash(model):
        raise UsageError("The calibration table is of another model; calibrate the model that is quantized.")


def require_float(model: ir.Model, path: Path | str = "The model") -> None:
    """Raise an error for a model that computes with integers already, or in float16.

    Raw images, and weights that are stored as integers and read as floats, do not count.

    Raises:
        QuantizedModelError: It computes with integers.
        ModelFileError: It computes in float16.
    """
    if counts := integer_operators(model):
        operators = ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common(3))
        raise QuantizedModelError(
            f"{path} is quantized already ({operators}); quantize the float model that it was made from."
        )
    require_float32(model, path)


def _require_layers(names: Collection[str], placement: Placement, *, joined: bool) -> None:
    layers = [name_of(layer.node) for layer in placement.layers]
    unknown = set(names) - set(layers)
    if unknown:
        message = (
            f"There is no layer {min(unknown)!r} to keep in float; the model's layers are called "
            f"{', '.join(layers[:3])} …; `rexport inspect` lists them."
        )
        if joined:
            message += " It may have been joined with another layer by recovery; pass keep_float to recover too."
        raise UsageError(message)


def _write_integers(planned: Plan, target: Target, weights: Mapping[str, RoundedWeight]) -> None:
    """Write the planned integers into the model; ``weights`` are those that are rounded already, by layer."""
    graph, placement = planned.model.graph, planned.placement
    with remembered_names(graph):
        for layer in placement.layers:
            if layer.integer and layer.node.op_type in WEIGHTED:
                _quantize_weights(layer.node, planned, target, weights.get(name_of(layer.node)))
        _quantize_tensors(graph, placement, planned.maps, target)
        if target.activations.symmetric:
            compute_pixels(graph, placement.dequantized.values())
        in_float = [layer.node for layer in placement.layers if not layer.integer]
        if target.runtime == ONNX_RUNTIME:
            dequantize_per_channel(graph, in_float)
        if "AveragePool" in target.kernels:
            average_in_float(graph, in_float)
    common.RemoveUnusedNodesPass()(planned.model)


def _quantize_weights(node: ir.Node, planned: Plan, target: Target, rounded: RoundedWeight | None) -> None:
    """Store the weights of a layer as integers: as they were ``rounded``, or each to the nearest."""
    input_scale, axis = planned.map_of(node.inputs[0]).scale, output_axis(node)
    weight, bias = contents_of(node.inputs[1]), constant(input_at(node, 2))
    # for a bias in float too: ONNX Runtime quantizes it itself
    smallest = 0.0 if bias is None or axis else smallest_weight_scale(bias, input_scale)
    if rounded is None:
        weight_map, integers = of_weight(
            weight, target.weights, axis=axis, smallest_scale=smallest, exact_in=target.rest
        )
    else:
        weight_map, integers = Quantization(rounded.scale, np.zeros(len(rounded.scale), np.int8)), rounded.integers
        if bias is not None:
            bias = (bias + rounded.bias).astype(np.float32)
    _dequantized_input(node, 1, "weight", integers, weight_map, axis=axis)
    if bias is not None and target.integer_bias:
        bias_map, integers = of_bias(bias, input_scale, weight_map.scale)
        _dequantized_input(node, 2, "bias", integers, bias_map)
    elif bias is not None and rounded is not None:
        replace_initializer(node, 2, bias, name=f"{name_of(node)}.bias_corrected")


def _dequantized_input(
    node: ir.Node, index: int, role: str, integers: np.ndarray, map_: Quantization, *, axis: int = 0
) -> None:
    """Let ``node`` read ``integers`` through a DequantizeLinear as its input ``index``."""
    graph, old = graph_of(node), node.inputs[index]
    assert old is not None
    name = f"{name_of(node)}.{role}"
    arrays = {"quantized": integers, "scale": map_.scale, "zero_point": map_.zero_point}
    stored = [add_initializer(graph, f"{name}_{suffix}", array) for suffix, array in arrays.items()]
    dequantize = _node(graph, "DequantizeLinear", stored, f"{name}_dequantized", like=old, axis=axis)
    graph.insert_before(node, dequantize)
    node.replace_input_with(index, dequantize.outputs[0])


def _quantize_tensors(graph: ir.Graph, placement: Placement, maps: Mapping[str, Quantization], target: Target) -> None:
    constants = {
        source: (
            add_initializer(graph, f"{source}_scale", map_.scale),
            add_initializer(graph, f"{source}_zero_point", map_.zero_point),
        )
        for source, map_ in maps.items()
    }
    for value in [*graph.inputs, *(value for node in list(graph) for value in node.outputs)]:
        name = str(value.name)
        original = placement.dequantized.get(name)
        if name not in placement.tensors or (original and dequantizes_tensor(original, target)):
            continue
        source = placement.tensors[name]
        scale, zero_point = constants[source]
        readers = [(usage.node, usage.idx) for usage in value.uses()]
        dequantize = _node(graph, "DequantizeLinear", [None, scale, zero_point], f"{name}_dequantized", like=value)
        if name == source or target.stored is Stored.INPUTS:
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
        if name in placement.outputs:
            _give(graph, value, dequantize.outputs[0])


def _give(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` be the output of the graph that ``old`` was, under its name."""
    name = old.name
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new
    old.name = free_name(graph, f"{name}_computed")
    new.name = name


def _move_integers(graph: ir.Graph, value: ir.Value, zero_point: ir.Value) -> ir.Value:
    """Let the operator that moved ``value``, dequantized, move the integers instead; they share the zero point."""
    node = value.producer()
    assert node is not None
    if dequantize := producer_of(node.inputs[0], "DequantizeLinear"):  # unless another of the node's results came first
        node.replace_input_with(0, dequantize.inputs[0])
    if node.op_type == "Pad":  # it pads with the integer for zero
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
    graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value | None], output: str, *, like: ir.Value, **attributes: int
) -> ir.Node:
    """Return a node that is not in the graph yet; its output gets a free name, and the shape and type of ``like``."""
    name = free_name(graph, output)
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, like.shape, like.type
    return node


def _describe(
    model: ir.Model,
    table: CalibrationTable,
    target: Target,
    placement: Placement,
    calibrator: Calibrator,
    recovered: Recovered | None,
) -> None:
    described = {
        "target": target.name,
        "activations": f"{np.dtype(target.activations.dtype).name} per tensor",
        "weights": f"{np.dtype(target.weights.dtype).name} per channel, ±{target.weights.high}",
        "biases": "int32" if target.integer_bias else np.dtype(target.rest).name,
        "calibrator": str(calibrator),
        "calibration_images": table.images,
        "recovered": str(recovered or "nothing"),
        "float_model_sha256": table.model_sha256,
        "float_layers": {name_of(layer.node): layer.why for layer in placement.layers if not layer.integer},
    }
    replace(Metadata.of(model), quantization=json.dumps(described)).write_to(model)


def _report(layer: Layer, target: Target, why_float32: str | None) -> LayerReport:
    """Return the precision of a layer; ``why_float32`` is why it is not float16, if other float layers are."""
    precision = "int8" if layer.integer else np.dtype(np.float32 if why_float32 else target.rest).name
    reasons = "; ".join(filter(None, [layer.why, why_float32]))
    return LayerReport(name=name_of(layer.node), op_type=layer.node.op_type, precision=precision, why=reasons)


def _check(model: ir.Model) -> None:
    try:
        onnx.checker.check_model(to_bytes(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The quantized model is not valid ONNX: {error}") from error
