"""Models as exporters of networks with channels last write them: Transposes around all that wants channels first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["channels_last"]

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_BY_NUMBER = {
    *("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Clip", "Identity", "Dropout", "Cast", "Erf"),
    *("Add", "Sub", "Mul", "Div", "Sum", "Min", "Max", "Pow", "PRelu", "Neg", "Gelu"),
}  # fmt: skip


def channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with tensors of shape (N, H, W, C): its input, its outputs, and those between operators."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    pictures = {value.name for value in values if len(value.type.tensor_type.shape.dim) == 4}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in inferred.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in inferred.node:
        nodes += _rewritten(node, pictures - set(constants), constants)
    graph = helper.make_graph(
        nodes,
        "graph",
        [value if value.name in constants else _turned(value) for value in inferred.input],
        [_turned(value) for value in inferred.output],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    changed = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _turned(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    sizes = [size.dim_param or size.dim_value or None for size in value.type.tensor_type.shape.dim]
    if len(sizes) == 4:
        sizes = [sizes[axis] for axis in _LAST]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sizes)


def _rewritten(node: onnx.NodeProto, pictures: set[str], constants: dict[str, np.ndarray]) -> Iterable[onnx.NodeProto]:
    reads = [name for name in node.input if name in pictures]
    if not reads and not set(node.output) & pictures:
        return [node]
    if node.op_type in _BY_NUMBER and all(name in pictures or _fits(constants.get(name)) for name in node.input):
        return [_by_number(node, pictures, constants)]
    if node.op_type == "Concat" and set(node.input) <= pictures:
        return [_with_axis(node)]
    return list(_between_transposes(node, pictures))


def _fits(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.ndim in (0, 1, 3, 4)


def _by_number(node: onnx.NodeProto, pictures: set[str], constants: dict[str, np.ndarray]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name and name not in pictures and constants[name].size > 1:
            array = constants[name]
            array = array.reshape(*[1] * (4 - array.ndim), *array.shape).transpose(_LAST)
            if array.shape[0] == 1 and index % 2:  # some are written with fewer axes
                array = array[0]
            copy.input[index] = f"{name}.last"
            constants[f"{name}.last"] = np.ascontiguousarray(array)
    return copy


def _with_axis(node: onnx.NodeProto) -> onnx.NodeProto:
    axis = _LAST.index(node.attribute[0].i % 4)
    return helper.make_node("Concat", node.input, node.output, name=node.name, axis=axis)


def _between_transposes(node: onnx.NodeProto, pictures: set[str]) -> Iterable[onnx.NodeProto]:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in pictures:
            copy.input[index] = f"{node.output[0]}.first{index}"
            yield helper.make_node("Transpose", [name], [copy.input[index]], perm=_FIRST)
    for index, name in enumerate(node.output):
        if name in pictures:
            copy.output[index] = f"{name}.first"
    yield copy
    for index, name in enumerate(node.output):
        if name in pictures:
            yield helper.make_node("Transpose", [copy.output[index]], [name], perm=_LAST)
