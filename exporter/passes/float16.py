"""Weights and computation in float16, inputs and outputs in float32 as they were.

float16 has 11 bits of precision; its largest number is 65,504 and its smallest 6e-8 (IEEE 754 binary16). A layer stays
in float32 where a tensor that it reads or gives is too large for that, or where ONNX has no float16 for its operator;
between the two stands a Cast. Weights that become 0 are counted: a network whose numbers are that small loses them.

With QuantizeLinear and DequantizeLinear, scales become float16 too: what is dequantized has the type of its scale.
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
from rexport.passes._graph import add_initializer, computes_in, constant, free_name, is_op, name_of, remembered_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["LARGEST_SAFE", "Float16Result", "KeptLayer", "require_float32", "with_float16"]

_LARGEST = float(np.finfo(np.float16).max)
# Images that calibration has not seen go beyond the ranges of those that it has.
LARGEST_SAFE = _LARGEST / 2
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


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
        model: Of float32, or quantized from it.
        largest: The largest absolute value that tensors were seen to take, by name. A layer that reads or gives one
            beyond ``LARGEST_SAFE`` stays in float32; of a tensor that is missing, nothing is known and nothing feared.
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
        conversion = _Conversion(graph, frozenset(node for node, why in why_kept.items() if why is None), version)
        conversion.run()
    common.RemoveUnusedNodesPass()(changed)
    kept = tuple(KeptLayer(name=name_of(n), op_type=n.op_type, why=why) for n, why in why_kept.items() if why)
    described = {"precision": "float16", "float32_layers": {layer.name: layer.why for layer in kept}}
    replace(Metadata.of(changed), precision=json.dumps(described)).write_to(changed)
    return Float16Result(model=changed, kept=kept, vanished=conversion.vanished)


def require_float32(model: ir.Model, path: object = "The model") -> None:
    """Raise :class:`ModelFileError` for a model that computes in float16 already; one that stores weights so may."""
    if computes_in(model, _HALF):
        raise ModelFileError(f"{path} is in float16 already; take the float32 model that it was made from.")


def _values(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    yield from node.outputs


def _why_kept(node: ir.Node, version: int, largest: Mapping[str, float], keep_float: Collection[str]) -> str | None:
    """Return why a node that reads or gives float32 stays so, or ``None`` if it becomes float16."""
    if name_of(node) in keep_float:
        return "it was asked to stay in float32"
    for value in _values(node):
        if value.dtype != _FLOAT:
            continue
        at, limit = _reach(value, largest), _LARGEST if constant(value) is not None else LARGEST_SAFE
        if at > limit and not (is_op(node, "Clip") and constant(value) is not None):  # a bound that is none may be lost
            return f"{value.name!r} reaches {at:,.0f}, and float16 ends at {_LARGEST:,.0f}"
    if any(
        value.dtype == _FLOAT and not _may_be_half(node, index, version, "outputs")
        for index, value in enumerate(node.outputs)
    ):
        return f"{node.op_type} gives no float16 in opset {version}"
    reads = [index for index, value in enumerate(node.inputs) if value is not None and value.dtype == _FLOAT]
    if reads and not any(_becomes_half(node, index, version) for index in reads):
        return f"{node.op_type} takes no float16 in opset {version}"
    return None


def _reach(value: ir.Value, largest: Mapping[str, float]) -> float:
    """Return the largest absolute value of a tensor, as far as it is known, otherwise 0."""
    array, node = constant(value), value.producer()
    if array is not None:
        return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if is_op(node, "DequantizeLinear") and node is not None:
        scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if scale is not None and zero is not None and zero.dtype in (np.int8, np.uint8):
            ends = np.iinfo(zero.dtype)
            steps = np.maximum(ends.max - zero.astype(np.int64), zero.astype(np.int64) - ends.min)
            return float((np.abs(scale) * steps).max(initial=0.0))
    return largest.get(str(value.name), 0.0)


def _becomes_half(node: ir.Node, index: int, version: int) -> bool:
    value = node.inputs[index]
    return value is not None and value.dtype == _FLOAT and _may_be_half(node, index, version, "inputs")


def _may_be_half(node: ir.Node, index: int, version: int, side: str) -> bool:
    """Say whether ONNX allows float16 for an input or output of an operator."""
    if node.domain or "dtype" in node.attributes:
        return False
    schema = onnx.defs.get_schema(node.op_type, version)
    parameters = schema.inputs if side == "inputs" else schema.outputs
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    kind = parameters[min(index, len(parameters) - 1)].type_str  # the last may stand for any number
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
        wanted = [
            (node, index, node in self._half and _becomes_half(node, index, self._version))
            for node in self._graph
            for index, value in enumerate(node.inputs)
            if value is not None and value.dtype == _FLOAT
        ]
        results = [value for node in self._half for value in node.outputs if value.dtype == _FLOAT]
        for node in self._half:
            _set_type(node)
        for value in results:
            value.type = ir.TensorType(_HALF)
        for node, index, half in wanted:
            source = node.inputs[index]
            assert source is not None
            if constant(source) is not None:
                if half:
                    node.replace_input_with(index, self._half_weight(source))
            elif (source.dtype == _HALF) is not half:
                node.replace_input_with(index, self._cast(source, _HALF if half else _FLOAT))
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == _HALF:
                name, value.name = str(value.name), free_name(self._graph, f"{value.name}_half")
                result = self._cast(value, _FLOAT)
                result.name = name
                self._graph.outputs[index] = result

    def _half_weight(self, value: ir.Value) -> ir.Value:
        if value not in self._weights:
            array = constant(value)
            assert array is not None
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            lost = int(np.count_nonzero((half == 0) & (array != 0)))
            if lost:
                self.vanished[str(value.name)] = lost
            self._weights[value] = add_initializer(self._graph, f"{value.name}_half", half)
        return self._weights[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return ``value`` in another type; it is cast once, right where it comes from."""
        if (value, dtype) not in self._casts:
            name = free_name(self._graph, f"{value.name}_{'half' if dtype == _HALF else 'float'}")
            node = ir.node("Cast", [value], {"to": dtype}, name=name)
            (result,) = node.outputs
            result.name, result.shape, result.type = name, value.shape, ir.TensorType(dtype)
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], node)
            else:
                self._graph.insert_after(producer, node)
            self._casts[value, dtype] = result
        return self._casts[value, dtype]


def _set_type(node: ir.Node) -> None:
    """Let a node that says itself of what type its result is say float16."""
    if node.outputs[0].dtype != _FLOAT:
        return
    if is_op(node, "Cast"):
        node.attributes.add(ir.AttrInt64("to", _HALF))
    elif is_op(node, "ConstantOfShape"):
        fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
        node.attributes.add(ir.AttrTensor("value", ir.tensor(fill.astype(np.float16))))
