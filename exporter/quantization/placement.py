"""Which tensors of a model become integers, decided before anything is changed.

An operator runs on integers if the runtimes have an integer kernel for it and everything it needs is constant. Its
inputs and its result are then stored as integers, but for a result that only a ReLU reads (the two run as one), and
for the model's outputs and a classifier's scores before a Softmax, which stay float. Operators that only move data
around move the integers of their input. Raw images are integers from the start (see ``passes.raw_image``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._graph import constant, is_op, is_rectifier, only_consumer, why_not_constant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Layer", "Placement", "place", "result_of"]

# Each with its weight as input 1, output channels first, and a bias as input 2.
_WEIGHTED = ("Conv", "Gemm")
_JOINING = ("Add", "Concat")
_POOLING = ("GlobalAveragePool", "AveragePool")
_MOVING = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An operator that computes: whether it becomes ``integer``, and why (not)."""

    node: ir.Node
    integer: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The plan.

    Attributes:
        layers: The operators that compute.
        tensors: For each tensor to store as integers, the tensor whose range it uses.
        given: The tensors that are integers in the float model already, each with its DequantizeLinear.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    given: Mapping[str, ir.Node]


def place(model: ir.Model) -> Placement:
    """Decide which tensors of a float model become integers."""
    layers: list[Layer] = []
    in_float: set[ir.Node] = set()
    for node in model.graph:
        layer = _layer(node, in_float)
        if layer is not None:
            layers.append(layer)
            if not layer.integer:
                in_float.add(node)
    stored: dict[str, None] = {}  # a set that keeps the order
    for layer in layers:
        if layer.integer:
            for value in _activations_of(layer.node):
                stored.setdefault(str(value.name))
            result = result_of(layer.node)
            if not (result.is_graph_output() or _ends_in_scores(layer.node)):
                stored.setdefault(str(result.name))
    given = {str(node.outputs[0].name): node for node in model.graph if _is_given(node)}
    tensors: dict[str, str] = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        source = _moved_from(value)
        if source is not None and str(source.name) in tensors and not value.is_graph_output():
            tensors[str(value.name)] = tensors[str(source.name)]
        elif str(value.name) in stored or str(value.name) in given:
            tensors[str(value.name)] = str(value.name)
    return Placement(layers=tuple(layers), tensors=tensors, given=given)


def result_of(node: ir.Node) -> ir.Value:
    """Return what is stored of an operator: its output, or that of the ReLU that alone reads it."""
    result = node.outputs[0]
    while (reader := only_consumer(result)) is not None and is_rectifier(reader):
        result = reader.outputs[0]
    return result


def _is_given(node: ir.Node) -> bool:
    """Say whether a node says of integers which numbers they are, with one scale and zero point for all."""
    if not is_op(node, "DequantizeLinear") or len(node.inputs) < 3:
        return False
    return all(parameter is not None and parameter.size == 1 for parameter in map(constant, node.inputs[1:]))


def _ends_in_scores(node: ir.Node) -> bool:
    """Say whether only a Softmax reads an operator's result, and its kernel can give floats: then it does."""
    readers = node.outputs[0].consumers()
    return is_op(node, "Gemm") and bool(readers) and all(is_op(reader, "Softmax") for reader in readers)


def _activations_of(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of an operator that are computed while the model runs."""
    inputs = node.inputs[:1] if is_op(node, *_WEIGHTED, *_POOLING) else node.inputs
    return [value for value in inputs if value is not None]


def _moved_from(value: ir.Value) -> ir.Value | None:
    """Return the tensor that ``value`` holds the very numbers of (and zeros), if an operator only moved them."""
    node = value.producer()
    if node is None or not is_op(node, *_MOVING) or value is not node.outputs[0]:
        return None
    return None if is_op(node, "Pad") and not _pads_with_zeros(node) else node.inputs[0]


def _pads_with_zeros(node: ir.Node) -> bool:
    fill = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    is_constant = node.attributes.get_string("mode", "constant") == "constant"
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    return is_constant and (not given or (fill is not None and not fill.any()))


def _layer(node: ir.Node, in_float: Collection[ir.Node]) -> Layer | None:
    """Judge an operator that computes; ``None`` for one that moves data or belongs to the layer before it.

    ``in_float`` are the operators before it that were judged to stay float.
    """
    if is_op(node, *_MOVING) or node.outputs[0].dtype not in (ir.DataType.FLOAT, None):  # arithmetic of shapes
        return None
    if _is_given(node):
        return None
    if is_rectifier(node):
        return (
            None
            if _belongs_to_a_layer(node)
            else Layer(node=node, integer=False, why="no layer that computes stands right before it")
        )
    why_not = _why_float(node)
    if why_not is None and is_op(node, *_JOINING) and all(_computed_by(v) in in_float for v in node.inputs):
        why_not = "what it joins is computed in float"
    return Layer(node=node, integer=why_not is None, why=why_not or "it has an integer kernel")


def _belongs_to_a_layer(rectifier: ir.Node) -> bool:
    value = rectifier.inputs[0]
    source = None if value is None else value.producer()
    if value is None or source is None or only_consumer(value) is not rectifier or is_op(source, *_MOVING):
        return False
    return not is_rectifier(source) or _belongs_to_a_layer(source)


def _computed_by(value: ir.Value | None) -> ir.Node | None:
    """Return the operator that computed ``value``, before it was moved or rectified."""
    node = None if value is None else value.producer()
    while node is not None and node.inputs and (is_op(node, *_MOVING) or is_rectifier(node)):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node


def _why_float(node: ir.Node) -> str | None:
    if is_op(node, *_WEIGHTED):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        why_not = why_not_constant(node.inputs[1], "weight") or (bias and why_not_constant(bias, "bias"))
        if why_not:
            return why_not
        if is_op(node, "Gemm"):  # its kernel gives floats too, so it may end the model
            return None if _is_linear_layer(node) else "it is a matrix product other than x · Wᵀ + b"
    elif is_op(node, *_JOINING):
        if any(value is None or constant(value) is not None for value in node.inputs):
            return "one of its inputs is a constant"
    elif not is_op(node, *_POOLING):
        return f"{node.op_type} has no integer kernel"
    return "its result is an output of the model, which stays float" if result_of(node).is_graph_output() else None


def _is_linear_layer(node: ir.Node) -> bool:
    attributes = node.attributes
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None
    return (
        (bias is None or bias.shape == weight.shape[:1])
        and attributes.get_int("transB", 0) == 1
        and attributes.get_int("transA", 0) == 0
        and attributes.get_float("alpha", 1.0) == 1.0
        and attributes.get_float("beta", 1.0) == 1.0
    )
