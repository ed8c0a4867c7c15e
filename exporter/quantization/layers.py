"""Which operators of a model compute, and which of them a target computes with integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._conv import is_linear_layer
from rexport.passes._graph import (
    constant,
    contents_of,
    input_at,
    inputs_of,
    int_attribute,
    is_op,
    is_rectifier,
    name_of,
    only_consumer,
    producer_of,
    why_not_constant,
)
from rexport.quantization.averages import why_not_averaged
from rexport.quantization.targets import Stored

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rexport.quantization.targets import Target

__all__ = [
    "WEIGHTED",
    "Layer",
    "convolutions_before",
    "dequantizes_tensor",
    "identity_of",
    "is_final",
    "layers_of",
    "moved_from",
    "output_axis",
    "result_of",
    "stores_result",
]

# Each with its weight as input 1 and a bias as input 2.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
_JOINING = ("Add", "Mul", "Concat")
_MOVING = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "Split", "Expand")
_SCORING = ("Softmax", "LogSoftmax")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An operator that computes: whether it becomes ``integer``, and why (not)."""

    node: ir.Node
    integer: bool
    why: str


def layers_of(model: ir.Model, target: Target, keep_float: Collection[str] = frozenset()) -> tuple[Layer, ...]:
    """Return the operators of a float model that compute, in order; those called ``keep_float`` stay float."""
    layers: dict[ir.Node, Layer] = {}
    for node in model.graph:
        if _is_layer(node, target):
            why_not = _why_float(node, target, layers)
            if name_of(node) in keep_float:
                why_not = "kept in float"
            layers[node] = Layer(node=node, integer=why_not is None, why=why_not or "it has an integer kernel")
    return tuple(layers.values())


def output_axis(node: ir.Node) -> int:
    """Return the axis of output channels in a weighted operator's weight; scales are per channel along it."""
    return 1 if is_op(node, "ConvTranspose") else 0


def dequantizes_tensor(node: ir.Node, target: Target | None = None) -> bool:
    """Say whether a node is a DequantizeLinear with one scale and zero point (of the ``target``'s type)."""
    zero_point = input_at(node, 2)
    if not is_op(node, "DequantizeLinear") or zero_point is None:
        return False
    if not all(parameter is not None and parameter.size == 1 for parameter in map(constant, node.inputs[1:])):
        return False
    return target is None or zero_point.dtype == ir.DataType.from_numpy(np.dtype(target.activations.dtype))


def moved_from(value: ir.Value) -> ir.Value | None:
    """Return the tensor whose numbers ``value`` holds (and zeros), if an operator only moved them."""
    node = value.producer()
    if node is None or not _moves(node) or any(output.is_graph_output() for output in node.outputs):
        return None
    if value is not node.outputs[0] and not is_op(node, "Split"):
        return None
    if is_op(node, "Pad") and not _pads_with_zeros(node):
        return None
    return node.inputs[0]


def result_of(node: ir.Node) -> ir.Value:
    """Return the tensor that is stored of an operator: its output, or that of the ReLU that alone reads it."""
    result = node.outputs[0]
    while (reader := only_consumer(result)) is not None and is_rectifier(reader):
        result = reader.outputs[0]
    return result


def is_final(value: ir.Value) -> bool:
    """Say whether a tensor is an output of the model, or only outputs and the scores of a Softmax are made of it.

    As integers, such scores would be clipped to the range of the pictures for calibration.
    """
    readers = value.consumers()
    if value.is_graph_output() or not readers:
        return value.is_graph_output()
    return all(
        is_op(node, *_SCORING) or (_moves(node) and node.inputs[0] is value and all(map(is_final, node.outputs)))
        for node in readers
    )


def stores_result(node: ir.Node, target: Target) -> bool:
    """Say whether the result of an integer operator is stored as integers.

    Of the tensors that are final, only feature maps are, and only where the operator can't give floats: ONNX Runtime
    would run it in float, and they are the largest tensors of their networks.
    """
    if target.stored is Stored.INPUTS:
        return False
    result = result_of(node)
    return not is_final(result) or (_is_feature_map(result) and node.op_type not in target.gives_floats)


def identity_of(add: ir.Node) -> ir.Value | None:
    """Return the input of an Add that does not come from the convolution fused with it; ``None`` if none can be fused.

    If both are results of convolutions, it is the one with fewer convolutions before it: that of the shortcut.
    """
    ends = [value for value in inputs_of(add) if _is_sum_of_products(value, add)]
    if len(add.inputs) != 2 or not ends or add.inputs[0] is add.inputs[1]:
        return None
    fused = max(ends, key=convolutions_before)
    return next(value for value in add.inputs if value is not fused)


def _is_feature_map(value: ir.Value) -> bool:
    """Say whether a tensor is one of several outputs of the model, with several positions for each channel.

    A single output is a prediction: an image, or the scores of pixels, whose order rounding would change.
    """
    graph = value.graph
    if not value.is_graph_output() or graph is None or len(set(graph.outputs)) == 1 or value.shape is None:
        return False
    is_of_scores = any(is_op(node, *_SCORING) for node in value.consumers())
    return not is_of_scores and any(side != 1 for side in value.shape[2:])


def _is_sum_of_products(value: ir.Value, reader: ir.Node) -> bool:
    return is_op(value.producer(), "Conv", "ConvTranspose") and only_consumer(value) is reader


def convolutions_before(value: ir.Value) -> int:
    """Return the number of convolutions on the way back from ``value`` to the first tensor that several nodes read."""
    count, node = 0, value.producer()
    while node is not None:
        count += is_op(node, "Conv", "ConvTranspose")
        source = next((value for value in inputs_of(node) if constant(value) is None), None)
        node = source.producer() if source is not None and len(source.uses()) == 1 else None
    return count


def _moves(node: ir.Node) -> bool:
    """Say whether an operator gives the numbers that it reads, and computes none."""
    is_repeated = is_op(node, "Resize") and node.attributes.get_string("mode", "nearest") == "nearest"
    return is_repeated or is_op(node, *_MOVING)


def _pads_with_zeros(node: ir.Node) -> bool:
    fill = input_at(node, 2)
    array = constant(fill)
    is_zero = fill is None or (array is not None and not array.any())
    return is_zero and node.attributes.get_string("mode", "constant") == "constant"


def _is_layer(node: ir.Node, target: Target) -> bool:
    """Say whether an operator computes: it neither moves data nor belongs to the layer before it."""
    if _moves(node) or node.outputs[0].dtype not in (ir.DataType.FLOAT, None):  # arithmetic of shapes
        return False
    if is_op(node, "Concat") and target.stored is Stored.INPUTS:  # its reader quantizes the moved numbers
        return False
    return not (dequantizes_tensor(node) or (is_rectifier(node) and _belongs_to_a_layer(node)))


def _belongs_to_a_layer(rectifier: ir.Node) -> bool:
    value = rectifier.inputs[0]
    source = producer_of(value)
    if value is None or source is None or only_consumer(value) is not rectifier or _moves(source):
        return False
    return not is_rectifier(source) or _belongs_to_a_layer(source)


def _computed_by(value: ir.Value | None) -> ir.Node | None:
    """Return the operator that computed ``value``, before it was moved or rectified."""
    node = producer_of(value)
    while node is not None and node.inputs and (_moves(node) or is_rectifier(node)):
        node = producer_of(node.inputs[0])
    return node


def _why_float(node: ir.Node, target: Target, before: Mapping[ir.Node, Layer]) -> str | None:
    """Return why an operator stays float, or ``None`` if it does not, after the layers ``before`` it."""
    if is_rectifier(node):
        return "no layer to fuse with comes right before it"
    if node.op_type not in target.kernels or node.domain:
        return f"{node.op_type} has no integer kernel"
    why_not = None
    if is_op(node, *WEIGHTED):
        why_not = _why_not_weighted(node, target)
    elif is_op(node, *_JOINING):
        why_not = _why_not_joining(node, target, before)
    elif is_op(node, "AveragePool"):
        why_not = why_not_averaged(node)
    gives_floats = target.stored is Stored.INPUTS or node.op_type in target.gives_floats
    if why_not is None and not gives_floats and not stores_result(node, target):
        return "its result is an output or a classifier's scores, which stay float"
    return why_not


def _why_not_weighted(node: ir.Node, target: Target) -> str | None:
    if refusal := why_not_constant(node.inputs[1], "weight"):
        return refusal
    bias = input_at(node, 2)
    if bias is not None and (refusal := why_not_constant(bias, "bias")):
        return refusal
    weight = contents_of(node.inputs[1])
    if not weight.size:
        return "its weight is empty"
    if is_op(node, "Gemm"):
        return None if is_linear_layer(node) else "it is a matrix product other than x · Wᵀ + b"
    groups = int_attribute(node, "group", 1)
    sides = (weight.shape[0], weight.shape[1] * groups)  # output and input channels, or the other way round
    if groups > 1 and any(side // groups % target.group_multiple for side in sides):
        channels = " and ".join(str(side // groups) for side in sorted(set(sides)))
        return f"its groups have {channels} channels, and {target.name} takes only multiples of {target.group_multiple}"
    return None


def _why_not_joining(node: ir.Node, target: Target, before: Mapping[ir.Node, Layer]) -> str | None:
    if any(value is None or constant(value) is not None for value in node.inputs):
        return "one of its inputs is a constant"
    if any(is_op(_computed_by(value), "Softmax") for value in node.inputs):
        return "one of its inputs is a softmax, whose small values INT8 can't resolve"

    def in_float(source: ir.Node | None) -> bool:
        return source is not None and source in before and not before[source].integer

    if target.stored is Stored.INPUTS and is_op(node, "Add"):
        identity = identity_of(node)
        if identity is None or any(in_float(producer_of(v)) for v in node.inputs if v is not identity):
            return "no INT8 convolution can be fused with it"
    elif all(in_float(_computed_by(value)) for value in node.inputs):
        return "all its inputs are computed in float"
    return None
