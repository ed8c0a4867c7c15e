"""Weights and computation in float16, inputs and outputs in float32 as they were.

float16 has 11 bits of precision; its largest number is 65,504 and its smallest 6e-8 (IEEE 754 binary16). A layer stays
in float32 where a tensor that it reads or gives is too large for that, or where ONNX has no float16 for its operator;
between the two stands a Cast. Weights that become 0 are counted: a network whose numbers are that small loses them.

Scales of QuantizeLinear and DequantizeLinear become float16 too: a dequantized tensor has the type of its scale.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import ModelFileError
from rexport.model_file import Metadata, default_opset
from rexport.passes._graph import (
    add_initializer,
    computes_in,
    constant,
    contents_of,
    free_name,
    input_at,
    inputs_of,
    is_op,
    name_of,
    remembered_names,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["LARGEST_SAFE", "Float16Result", "KeptLayer", "require_float32", "with_float16"]

_LARGEST = float(np.finfo(np.float16).max)
# Images that calibration has not seen may exceed the ranges of those that it has.
LARGEST_SAFE = _LARGEST / 2
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_SUFFIXES = {_FLOAT: "float", _HALF: "half"}


@dataclass(frozen=True, kw_only=True)
class KeptLayer:
    """A layer that stays in float32, and why."""

    name: str
    op_type: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Float16Result:
    """The ``model``, the layers ``kept`` in float32, and how many numbers of each weight became 0, by its name."""

    model: ir.Model
    kept: tuple[KeptLayer, ...]
    vanished: Mapping[str, int]


def with_float16(
    model: ir.Model, *, largest: Mapping[str, float] | None = None, keep_float: Collection[str] = frozenset()
) -> Float16Result:
    """Return a copy of ``model`` that computes in float16.

    Args:
        model: A float32 model, or one quantized from it.
        largest: The largest absolute value observed in each tensor, by name. A layer that reads or gives a value beyond
            ``LARGEST_SAFE`` stays in float32; a tensor that is missing here is taken to be small enough.
        keep_float: The names of layers that stay in float32.

    Raises:
        ModelFileError: It has control flow, or is in float16 already.
    """
    require_float32(model)
    if any(True for _ in model.graph.subgraphs()):
        raise ModelFileError("The model has control flow (If, Loop or Scan), which is not converted to float16.")
    changed = model.clone()
    graph = changed.graph
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(changed)
    if any(value.dtype is None for node in graph for value in node.outputs):
        common.ShapeInferencePass()(changed)
    floats = [node for node in graph if any(value.dtype == _FLOAT for value in _values(node))]
    version = default_opset(changed)
    why_kept = {node: _why_kept(node, version, largest or {}, keep_float) for node in floats}
    with remembered_names(graph):
        conversion = _Conversion(graph, frozenset(node for node, reason in why_kept.items() if reason is None), version)
        conversion.run()
    common.RemoveUnusedNodesPass()(changed)
    layers = tuple(
        KeptLayer(name=name_of(node), op_type=node.op_type, why=reason) for node, reason in why_kept.items() if reason
    )
    described = {"precision": "float16", "float32_layers": {layer.name: layer.why for layer in layers}}
    replace(Metadata.of(changed), precision=json.dumps(described)).write_to(changed)
    return Float16Result(model=changed, kept=layers, vanished=conversion.vanished)


def require_float32(model: ir.Model, path: object = "The model") -> None:
    """Raise :class:`ModelFileError` for a model that computes in float16 already; one that stores weights so may."""
    if computes_in(model, _HALF):
        raise ModelFileError(f"{path} is in float16 already; take the float32 model that it was made from.")


def _values(node: ir.Node) -> Iterator[ir.Value]:
    yield from inputs_of(node)
    yield from node.outputs


def _why_kept(node: ir.Node, version: int, largest: Mapping[str, float], keep_float: Collection[str]) -> str | None:
    """Return why a node that reads or gives float32 stays so, or ``None`` if it becomes float16."""
    if name_of(node) in keep_float:
        return "it was asked to stay in float32"
    for value in _values(node):
        is_constant = constant(value) is not None
        if value.dtype != _FLOAT or (is_constant and is_op(node, "Clip")):  # a bound beyond float16 is none in it
            continue
        reach = _reach(value, largest)
        if reach > (_LARGEST if is_constant else LARGEST_SAFE):
            return f"{value.name!r} reaches {reach:,.0f}, and float16 ends at {_LARGEST:,.0f}"
    gives = [index for index, value in enumerate(node.outputs) if value.dtype == _FLOAT]
    if not all(_may_be_half(node, index, version, "outputs") for index in gives):
        return f"{node.op_type} gives no float16 in opset {version}"
    reads = [index for index, value in enumerate(node.inputs) if value is not None and value.dtype == _FLOAT]
    if reads and not any(_may_be_half(node, index, version, "inputs") for index in reads):
        return f"{node.op_type} takes no float16 in opset {version}"
    return None


def _reach(value: ir.Value, largest: Mapping[str, float]) -> float:
    """Return the largest absolute value of a tensor, 0 if it is not known."""
    array, node = constant(value), value.producer()
    if array is not None:
        return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if is_op(node, "DequantizeLinear"):
        scale, zero = constant(node.inputs[1]), constant(input_at(node, 2))
        if scale is not None and zero is not None and zero.dtype in (np.int8, np.uint8):
            ends = np.iinfo(zero.dtype)
            steps = np.maximum(ends.max - zero.astype(np.int64), zero.astype(np.int64) - ends.min)
            return float((np.abs(scale) * steps).max(initial=0.0))
    return largest.get(str(value.name), 0.0)


def _may_be_half(node: ir.Node, index: int, version: int, side: str) -> bool:
    """Say whether ONNX allows float16 for an input or output of an operator."""
    if node.domain or "dtype" in node.attributes:
        return False
    schema = onnx.defs.get_schema(node.op_type, version)
    parameters = getattr(schema, side)
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    kind = parameters[min(index, len(parameters) - 1)].type_str  # the last may be variadic
    return "tensor(float16)" in allowed.get(kind, (kind,))


class _Conversion:
    """The change of one graph: the nodes in ``half`` compute in float16."""

    def __init__(self, graph: ir.Graph, half: frozenset[ir.Node], version: int) -> None:
        self.vanished: dict[str, int] = {}
        self._graph, self._half, self._version = graph, half, version
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._weights: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Change the graph."""
        float_inputs = [
            (node, index, value)
            for node in self._graph
            for index, value in enumerate(node.inputs)
            if value is not None and value.dtype == _FLOAT
        ]
        becoming_half = {
            (node, index)
            for node, index, _ in float_inputs
            if node in self._half and _may_be_half(node, index, self._version, "inputs")
        }
        results = [value for node in self._half for value in node.outputs if value.dtype == _FLOAT]
        for node in self._half:
            _set_type(node)
        for value in results:
            value.type = ir.TensorType(_HALF)
        for node, index, source in float_inputs:
            dtype = _HALF if (node, index) in becoming_half else _FLOAT
            if constant(source) is None and source.dtype != dtype:
                node.replace_input_with(index, self._cast(source, dtype))
            elif constant(source) is not None and dtype == _HALF:
                node.replace_input_with(index, self._half_weight(source))
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == _HALF:
                name, value.name = str(value.name), free_name(self._graph, f"{value.name}_half")
                result = self._cast(value, _FLOAT)
                result.name = name
                self._graph.outputs[index] = result

    def _half_weight(self, value: ir.Value) -> ir.Value:
        if value not in self._weights:
            array = contents_of(value)
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if vanished := int(np.count_nonzero((half == 0) & (array != 0))):
                self.vanished[str(value.name)] = vanished
            self._weights[value] = add_initializer(self._graph, f"{value.name}_half", half)
        return self._weights[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return ``value`` in another type; it is cast once, right behind its producer."""
        if (value, dtype) not in self._casts:
            name = free_name(self._graph, f"{value.name}_{_SUFFIXES[dtype]}")
            node = ir.node("Cast", [value], {"to": dtype}, name=name)
            (result,) = node.outputs
            result.name, result.shape, result.type = name, value.shape, ir.TensorType(dtype)
            if producer := value.producer():
                self._graph.insert_after(producer, node)
            else:
                self._graph.insert_before(self._graph[0], node)
            self._casts[value, dtype] = result
        return self._casts[value, dtype]


def _set_type(node: ir.Node) -> None:
    """Change the attribute that gives the type of a node's result, if it has one, from float32 to float16."""
    if node.outputs[0].dtype != _FLOAT:
        return
    if is_op(node, "Cast"):
        node.attributes.add(ir.AttrInt64("to", _HALF))
    elif is_op(node, "ConstantOfShape"):
        fill = node.attributes.get("value")
        array = fill.as_tensor().numpy() if fill else np.zeros(1)
        node.attributes.add(ir.AttrTensor("value", ir.tensor(array.astype(np.float16))))
