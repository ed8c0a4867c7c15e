"""The cost of computing a model, counted from its file.

    MACs of a convolution            =  output elements · (input channels / groups) · kernel height · kernel width
    MACs of a transposed convolution =  input elements · (output channels / groups) · kernel height · kernel width
    MACs of a matrix product         =  output elements · length of the rows that are multiplied

A MAC is a multiply-accumulate: one product, added to a sum. They are the file's: zeros that merged groups multiply, or
the fourth channel of raw images, count. The operators are those of float files, of Q/DQ files, which multiply what
comes from DequantizeLinear, and of files with integer operators (QLinearConv and the like).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport.model_inputs import image_input, picture_size
from rexport.passes._graph import input_at, int_attribute, is_op, name_of
from rexport.passes._quantized import stored
from rexport.passes.fold_constants import FoldConstants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rexport.preprocessing import Size

__all__ = [
    "macs_of",
    "multiplies",
    "operations_of",
    "parameters_of",
    "tensor_shapes",
    "total_macs",
    "weight_of",
]

_BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "QLinearConv": 8}
# The operators that multiply with a weight, and which of their inputs are the picture and the weight.
_OPERANDS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}


def tensor_shapes(model: ir.Model, size: Size | None = None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, for one example; 0 is unknown.

    A model that insists on a batch keeps it.

    Args:
        model: Of pictures, or any other.
        size: Of the pictures, where the model leaves it open; by default as for :func:`picture_size`.
    """
    try:
        image = image_input(model)
    except ModelFileError:
        return _shapes(model, {})
    return _shapes(model, {image.name: image.shape(size or picture_size(model), image.batch or 1)})


def _shapes(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, where inputs have one example and open ones these shapes; 0 is unknown."""
    proto = ir.to_proto(model)
    for info in proto.graph.input:
        if info.name in model.graph.initializers:
            continue
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and (axis == 0 or info.name in inputs):
                dim.dim_value = inputs[info.name][axis] if info.name in inputs else 1
    del proto.graph.value_info[:]  # what they say of open dimensions would win
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    if any(is_op(node, "Resize") for node in model.graph):  # inference does not follow how it and the cut are computed
        one_picture = ir.from_proto(proto)
        FoldConstants()(one_picture)
        proto = ir.to_proto(one_picture)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in [*inferred.input, *inferred.value_info, *inferred.output]
        if info.type.tensor_type.HasField("shape")
    }
    for value in (*model.graph.outputs, *model.graph.initializers.values()):
        shapes.setdefault(str(value.name), tuple(size if isinstance(size, int) else 1 for size in value.shape or ()))
    return shapes


def multiplies(node: ir.Node) -> bool:
    """Say whether a node multiplies pictures with a weight, or matrices with each other."""
    return is_op(node, *_OPERANDS)


def weight_of(node: ir.Node) -> ir.Value | None:
    """Return the weight that a node multiplies with, as it is stored; ``None`` if it has none."""
    if not multiplies(node):
        return None
    return _stored_input(node, _OPERANDS[node.op_type][1])


def parameters_of(model: ir.Model) -> dict[str, int | None]:
    """Return how many numbers the weight and bias of every node that multiplies have, by its name.

    A file may list its weights among its inputs, with or without contents; they count by their shapes. What is computed
    from pictures is no weight.

    Returns:
        ``None`` for a node with a weight whose shape is not known.
    """
    pictures = _computed_from_pictures(model)
    return {
        name_of(node): _sum_of_known(
            _size(value)
            for value in (weight_of(node), _stored_input(node, _BIAS.get(node.op_type, len(node.inputs))))
            if value is not None and value not in pictures
        )
        for node in model.graph
        if multiplies(node)
    }


def _stored_input(node: ir.Node, place: int) -> ir.Value | None:
    return stored(input_at(node, place))


def _inputs_of_pictures(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that have to be given and are not read as weights."""
    weights = {weight_of(node) for node in model.graph}
    biases = {_stored_input(node, _BIAS[node.op_type]) for node in model.graph if is_op(node, *_BIAS)}
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return [value for value in inputs if value not in weights | biases]


def _computed_from_pictures(model: ir.Model) -> set[ir.Value]:
    computed = set(_inputs_of_pictures(model))
    for node in model.graph:
        if any(value in computed for value in node.inputs):
            computed.update(node.outputs)
    return computed


def _size(value: ir.Value) -> int | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return tensor.size
    if value.shape is None or not value.shape.is_static():
        return None
    return math.prod(value.shape.numpy())


def _sum_of_known(sizes: Iterable[int | None]) -> int | None:
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


def macs_of(model: ir.Model, *, size: Size | None = None) -> dict[str, int | None]:
    """Return the multiply-accumulates for one example of every node that multiplies with a weight, by its name.

    Args:
        model: Float, Q/DQ or of integer operators.
        size: See :func:`tensor_shapes`.

    Returns:
        ``None`` for a node whose shapes can't be inferred.

    Example:
        >>> from rexport import Preprocessing, build
        >>> from rexport.exporting import export
        >>> model = export(build("cifar_resnet20"), preprocessing=Preprocessing(size=32)).model
        >>> macs_of(model)["conv1"]  # 16 maps of 32 × 32, of 3 · 3 · 3 products each
        442368
    """
    shapes, batch = tensor_shapes(model, size), _batch(model)
    counted = {name_of(node): _macs(node, shapes) for node in model.graph if multiplies(node)}
    return {name: macs and macs // batch for name, macs in counted.items()}


def _batch(model: ir.Model) -> int:
    """Return the fixed batch of a model's first input, otherwise 1."""
    batch = next((value.shape[0] for value in _inputs_of_pictures(model) if value.shape), 1)
    return batch if isinstance(batch, int) else 1


def total_macs(model: ir.Model, *, size: Size | None = None) -> int | None:
    """Return the multiply-accumulates of a model for one example; ``None`` where a shape can't be inferred."""
    return _sum_of_known(macs_of(model, size=size).values())


def operations_of(model: ir.Model, *, size: Size | None = None) -> dict[str, int]:
    """Return the operations of every node of a float model, by its name, for one example.

    They are the multiply-accumulates of what multiplies with a weight, and the elements of the result of anything else.
    """
    shapes, examples = tensor_shapes(model, size), _batch(model)
    macs = macs_of(model, size=size)
    return {
        name_of(node): macs.get(name_of(node)) or math.prod(shapes.get(str(node.outputs[0].name), ())) // examples
        for node in model.graph
    }


def _macs(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the multiply-accumulates of a node for what its shapes hold; ``None`` if they are not known."""
    picture, weight = (_shape(node, index, shapes) for index in _OPERANDS[node.op_type])
    result = shapes.get(str(node.outputs[0].name), ())
    if not all(shape and min(shape) > 0 for shape in (picture, weight, result)):
        return None
    if is_op(node, "ConvTranspose"):
        return math.prod(picture) * math.prod(weight[1:])
    if is_op(node, "Gemm"):
        row = 0 if int_attribute(node, "transA", 0) else -1
        return math.prod(result) * picture[row]
    if "MatMul" in node.op_type:
        return math.prod(result) * picture[-1]
    return math.prod(result) * math.prod(weight[1:])


def _shape(node: ir.Node, index: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    value = input_at(node, index)
    return shapes.get(str(value.name), ()) if value else ()
