"""Which tensors of a model become integers, decided before anything is changed.

An operator runs on integers if the target has an integer kernel for it and everything it needs is constant (see
``layers``). Where operators compute integers from integers, their inputs and results are stored, but for a result that
only a ReLU reads (the two run as one), and for the model's outputs and a classifier's scores before a Softmax, which
stay float. Where they give floats, only inputs are stored; of the sum at the end of a residual block, which runs as one
with the convolution before it, that is the other input: the identity. Operators that only move data around move the
integers of their input. Raw images are integers from the start (see ``passes.raw_image``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._graph import is_op
from rexport.quantization.layers import (
    WEIGHTED,
    Layer,
    identity_of,
    is_given,
    is_given_out,
    layers_of,
    moved_from,
    result_of,
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
    """The plan.

    Attributes:
        layers: The operators that compute.
        tensors: For each tensor to store as integers, the tensor whose range it uses.
        given: The tensors that are integers in the float model already, each with its DequantizeLinear.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, str]
    given: Mapping[str, ir.Node]


def place(model: ir.Model, *, target: Target = X86, keep_float: Collection[str] = frozenset()) -> Placement:
    """Decide which tensors of a float model become integers; the layers called ``keep_float`` stay float."""
    layers = layers_of(model, target, keep_float)
    stored: dict[str, None] = {}  # a set that keeps the order
    for layer in layers:
        if layer.integer:
            for value in _stored_around(layer.node, target):
                stored.setdefault(str(value.name))
    if target.stored is Stored.INPUTS:
        for name in _fused_terms(layers):
            stored.pop(name, None)
    given = {str(node.outputs[0].name): node for node in model.graph if is_given(node)}
    for name, node in given.items():
        if is_given(node, target):
            stored.setdefault(name)
    return Placement(layers=layers, tensors=_with_moved(model, stored, target), given=given)


def _stored_around(node: ir.Node, target: Target) -> Iterator[ir.Value]:
    inputs = node.inputs[:1] if is_op(node, *WEIGHTED, *_POOLING) else node.inputs
    if is_op(node, "AveragePool") and node.inputs[0] is not None and is_op(node.inputs[0].producer(), "Pad"):
        inputs = [moved_from(node.inputs[0]) or node.inputs[0]]  # a Pad may have been written since calibration
    yield from (value for value in inputs if value is not None)
    result = result_of(node)
    if target.stored is Stored.RESULTS and not is_given_out(result):
        yield result


def _fused_terms(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the results of integer convolutions that an addition takes in before they are stored."""
    integer = {layer.node for layer in layers if layer.integer}
    for add in integer:
        identity = identity_of(add) if is_op(add, "Add") else None
        for value in add.inputs if identity is not None else ():
            if value is not identity and value is not None and value.producer() in integer:
                yield str(value.name)


def _with_moved(model: ir.Model, stored: Collection[str], target: Target) -> Mapping[str, str]:
    """Return for each stored tensor the one whose range it has, those that were moved from a stored one included."""
    tensors: dict[str, str] = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        name, source = str(value.name), moved_from(value)
        is_moved = source is not None and str(source.name) in tensors
        if source is not None and is_moved and (target.stored is Stored.RESULTS or name in stored):
            tensors[name] = tensors[str(source.name)]
        elif name in stored:
            tensors[name] = name
    return tensors
