"""Which tensors of a model become integers, decided before anything is changed.

An operator runs on integers if the target has an integer kernel for it and its parameters are constants (see
``layers``). Where operators compute integers from integers, their inputs and results are stored, but for a result that
only a ReLU reads (the two run as one), and for the model's outputs and a classifier's scores before a Softmax, which
stay float. Of several outputs, those that are feature maps are stored too where their operator would run in float
otherwise. Where operators give floats, only inputs are stored; of the sum at the end of a residual block, which runs as
one with the convolution before it, only the other input is: the identity. Operators that only move data move the
integers of their input. Raw images are integers from the start (see ``passes.raw_image``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._graph import inputs_of, is_op, producer_of
from rexport.quantization.layers import (
    WEIGHTED,
    Layer,
    dequantizes_tensor,
    identity_of,
    layers_of,
    moved_from,
    result_of,
    stores_result,
)
from rexport.quantization.targets import X86, Stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from rexport.quantization.targets import Target

__all__ = ["Layer", "Placement", "place", "result_of"]

_POOLING = ("GlobalAveragePool", "AveragePool")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which tensors and layers become integers.

    Attributes:
        layers: The operators that compute.
        tensors: The tensors to store as integers, each with the tensor whose range it uses.
        outputs: The tensors that are outputs of the model and given from the integers.
        dequantized: The tensors that are integers in the float model already, each with its DequantizeLinear.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    outputs: frozenset[str]
    dequantized: Mapping[str, ir.Node]


def place(model: ir.Model, *, target: Target = X86, keep_float: Collection[str] = frozenset()) -> Placement:
    """Decide which tensors of a float model become integers; the layers called ``keep_float`` stay float."""
    layers = layers_of(model, target, keep_float)
    stored: dict[str, None] = {}  # a set that keeps the order
    for layer in layers:
        if layer.integer:
            for value in _stored_around(layer.node, target):
                stored.setdefault(str(value.name))
    results = (result_of(layer.node) for layer in layers if layer.integer and stores_result(layer.node, target))
    outputs = frozenset(str(value.name) for value in results if value.is_graph_output())
    if target.stored is Stored.INPUTS:
        for name in _fused_terms(layers):
            stored.pop(name, None)
    dequantized = {str(node.outputs[0].name): node for node in model.graph if dequantizes_tensor(node)}
    for name, node in dequantized.items():
        if dequantizes_tensor(node, target):
            stored.setdefault(name)
    tensors = _with_moved(model, stored, target)
    return Placement(layers=layers, tensors=tensors, outputs=outputs, dequantized=dequantized)


def _stored_around(node: ir.Node, target: Target) -> Iterator[ir.Value]:
    inputs = inputs_of(node)
    if is_op(node, *WEIGHTED, *_POOLING):
        inputs = inputs[:1]
    if is_op(node, "AveragePool") and producer_of(inputs[0], "Pad"):
        inputs = [moved_from(inputs[0]) or inputs[0]]  # the Pad may have been written after calibration
    yield from inputs
    if stores_result(node, target):
        yield result_of(node)


def _fused_terms(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the results of integer convolutions that are fused with an addition, and so are not stored."""
    integer = {layer.node for layer in layers if layer.integer}
    for add in integer:
        if is_op(add, "Add") and (identity := identity_of(add)):
            terms = (value for value in inputs_of(add) if value is not identity)
            yield from (str(value.name) for value in terms if value.producer() in integer)


def _with_moved(model: ir.Model, stored: Collection[str], target: Target) -> Mapping[str, str]:
    """Return the tensor whose range each stored tensor uses; tensors moved from a stored one are stored too."""
    tensors: dict[str, str] = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        name, source = str(value.name), moved_from(value)
        is_moved = source is not None and str(source.name) in tensors
        if source is not None and is_moved and (target.stored is Stored.RESULTS or name in stored):
            tensors[name] = tensors[str(source.name)]
        elif name in stored:
            tensors[name] = name
    return tensors
