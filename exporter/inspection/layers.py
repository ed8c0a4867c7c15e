"""The layers of an ONNX file: the precision of each, the reason for it, and its cost.

A layer computes with integers if it reads them through DequantizeLinear: its input and its weight, or all its inputs if
it has no weight. The file's own metadata (see ``Metadata.quantization``) gives the reason for those that do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from rexport.cost import macs_of, multiplies, parameters_of
from rexport.model_file import Metadata
from rexport.passes._graph import constant, input_at, is_op, is_rectifier, name_of, only_consumer, producer_of
from rexport.quantization import TARGETS
from rexport.quantization.layers import WEIGHTED, result_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import numpy as np

__all__ = ["InspectedLayer", "inspected_layers"]

_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
_KERNELS = frozenset().union(*(target.kernels for target in TARGETS.values()))
_NO_LAYERS = (
    *("QuantizeLinear", "DequantizeLinear", "Cast", "Constant", "ConstantOfShape", "Identity", "Expand", "Split"),
    *("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "Gather"),
)


@dataclass(frozen=True, kw_only=True)
class InspectedLayer:
    """An operator that computes.

    Attributes:
        name: The name of its node.
        op_type: The operator.
        precision: ``int8``, ``float16``, ``float32`` …
        why: The reason for this precision, where it is known; otherwise empty.
        multiplies: Whether it multiplies with a weight, or matrices with each other.
        macs: Multiply-accumulates for one picture; ``None`` if the shapes are unknown or it does not multiply.
        parameters: Numbers in its weight and bias; ``None`` if their shapes are unknown.
        input_scale: The scale of the integers that it reads; ``None`` in float.
        weight_scales: The smallest and the largest scale of its weight's channels.
        output_scale: The scale of the integers that it returns.
    """

    name: str
    op_type: str
    precision: str
    why: str
    multiplies: bool
    macs: int | None
    parameters: int | None
    input_scale: float | None
    weight_scales: tuple[float, float] | None
    output_scale: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the layer as a JSON object."""
        return dict(vars(self))


def inspected_layers(model: ir.Model) -> tuple[InspectedLayer, ...]:
    """Return the operators of a model that compute, in order; missing types and shapes are inferred."""
    if any(output.dtype is None or output.shape is None for node in model.graph for output in node.outputs):
        model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True))
    metadata = Metadata.of(model)
    reasons = _recorded(metadata.quantization, "float_layers")
    in_float = frozenset(reasons)
    for name, reason in _recorded(metadata.precision, "float32_layers").items():
        reasons[name] = "; ".join(filter(None, (reasons.get(name), reason)))
    macs, parameters = macs_of(model), parameters_of(model)
    layers = tuple(_layer(node, reasons, in_float, macs, parameters) for node in model.graph if _computes(node))
    if any(is_op(node, "QuantizeLinear") or node.op_type.startswith("QLinear") for node in model.graph):
        return layers
    # in a float file, only layers in float32 beside float16 ones need a reason
    return tuple(replace(layer, why=reasons.get(layer.name, "")) for layer in layers)


def _recorded(text: str | None, key: str) -> dict[str, str]:
    """Return the reasons under ``key`` of a JSON object in the metadata; none where it can't be read."""
    try:
        reasons = json.loads(text or "{}")[key]
        return {str(name): str(reason) for name, reason in reasons.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _computes(node: ir.Node) -> bool:
    if is_op(node, *_NO_LAYERS) or node.outputs[0].dtype not in (*_NAMES, None):
        return _is_integer_operator(node)
    if is_rectifier(node):
        source = producer_of(node.inputs[0])
        return source is None or only_consumer(source.outputs[0]) is not node
    return True


def _is_integer_operator(node: ir.Node) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in ("ConvInteger", "MatMulInteger")


def _layer(
    node: ir.Node,
    reasons: Mapping[str, str],
    in_float: Collection[str],
    macs: Mapping[str, int | None],
    parameters: Mapping[str, int | None],
) -> InspectedLayer:
    """Describe a layer; ``reasons`` are recorded in the file, and ``in_float`` are the layers it left unquantized."""
    name, inputs = name_of(node), node.inputs
    weight: ir.Value | None = None
    if is_op(node, *WEIGHTED):
        inputs, weight = node.inputs[:1], input_at(node, 1)
    activations = [value for value in inputs if value is not None and constant(value) is None]
    why_float = _why_float(node, activations, weight)
    if name in in_float:
        why_float = reasons[name]
    precision, reason = "int8", "it reads integers"
    if why_float is not None:
        precision, reason = _precision(node), reasons.get(name, why_float)
    weight_scale = _scale_of(weight)
    return InspectedLayer(
        name=name,
        op_type=node.op_type,
        precision=precision,
        why=reason,
        multiplies=multiplies(node),
        macs=macs.get(name),
        parameters=parameters.get(name, 0),
        input_scale=_single(map(_scale_of, activations)),
        weight_scales=None if weight_scale is None else (float(weight_scale.min()), float(weight_scale.max())),
        output_scale=_output_scale(node),
    )


def _why_float(node: ir.Node, activations: list[ir.Value], weight: ir.Value | None) -> str | None:
    """Return why a layer does not compute with integers, or ``None`` if it does."""
    if _is_integer_operator(node):
        return None
    floats = [value for value in activations if producer_of(value, "DequantizeLinear") is None]
    if is_op(node, "Add") and len(floats) == 1 and len(activations) == 2 and _is_integer_product(floats[0]):
        return None  # the end of a residual block, which runs as one with the convolution
    if floats:
        return f"its input {floats[0].name!r} is stored in float"
    if not activations:
        return "it reads nothing"
    if weight is not None and producer_of(weight, "DequantizeLinear") is None:
        return "its weight is stored in float"
    if node.op_type not in _KERNELS:
        return f"{node.op_type} has no integer kernel"
    return None


def _is_integer_product(value: ir.Value) -> bool:
    node = value.producer()
    return is_op(node, "Conv", "ConvTranspose") and producer_of(node.inputs[0], "DequantizeLinear") is not None


def _precision(node: ir.Node) -> str:
    dtype = node.outputs[0].dtype
    if dtype is None:
        return "unknown"
    return _NAMES.get(dtype, dtype.name.lower())


def _scale_of(value: ir.Value | None) -> np.ndarray | None:
    node = producer_of(value, "DequantizeLinear")
    return constant(node.inputs[1]) if node else None


def _single(scales: Iterable[np.ndarray | None]) -> float | None:
    """Return the first of some scales, if it is that of a whole tensor."""
    scale = next(iter(scales), None)
    return float(scale.item()) if scale is not None and scale.size == 1 else None


def _output_scale(node: ir.Node) -> float | None:
    readers = result_of(node).consumers()
    return _single(constant(reader.inputs[1]) for reader in readers if is_op(reader, "QuantizeLinear"))
