"""What a model costs to compute, counted from its file.

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

from rexport.model_file import Metadata, image_input
from rexport.passes._graph import int_attribute, is_op, name_of
from rexport.passes._quantized import stored
from rexport.passes.fold_constants import FoldConstants

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["macs_of", "multiplies", "operations_of", "picture_size", "tensor_shapes", "total_macs", "weight_of"]

_DEFAULT_SIZE = 224  # of a file that takes any size and does not say which it was trained at
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


def picture_size(model: ir.Model) -> int:
    """Return the height and width that a model's pictures have, or have if not said otherwise.

    Raises:
        ModelFileError: It has no image input.
    """
    preprocessing = Metadata.of(model).preprocessing
    return image_input(model).size or (preprocessing.size if preprocessing else _DEFAULT_SIZE)


def tensor_shapes(model: ir.Model, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, for one picture of the model's own size, or ``size``; 0 is unknown.

    A model that insists on a batch keeps it.

    Raises:
        ModelFileError: It has no image input.
    """
    image = image_input(model)
    proto = ir.to_proto(model)
    (value,) = (value for value in proto.graph.input if value.name == image.name)
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not dim.HasField("dim_value"):
            dim.dim_value = size if axis else 1
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
    for known in (*model.graph.outputs, *model.graph.initializers.values()):
        shapes.setdefault(str(known.name), _stated(known))
    return shapes


def multiplies(node: ir.Node) -> bool:
    """Say whether a node multiplies pictures with a weight, or matrices with each other."""
    return is_op(node, *_OPERANDS)


def weight_of(node: ir.Node) -> ir.Value | None:
    """Return the weight that a node multiplies with, as it is stored; ``None`` if it has none."""
    if not multiplies(node):
        return None
    place = _OPERANDS[node.op_type][1]
    return stored(node.inputs[place]) if place < len(node.inputs) else None


def macs_of(model: ir.Model, *, size: int | None = None) -> dict[str, int | None]:
    """Return the multiply-accumulates for one picture of every node that multiplies with a weight, by its name.

    Args:
        model: With one image input; float, Q/DQ or of integer operators.
        size: Height and width of its pictures, where it takes any; by default what it was exported for, or 224.

    Returns:
        ``None`` for a node whose shapes can't be inferred.

    Raises:
        ModelFileError: It has no image input.

    Example:
        >>> from rexport import Preprocessing, build, export
        >>> model = export(build("cifar_resnet20"), preprocessing=Preprocessing(size=32)).model
        >>> macs_of(model)["conv1"]  # 16 maps of 32 × 32, of 3 · 3 · 3 products each
        442368
    """
    shapes = tensor_shapes(model, size or picture_size(model))
    pictures = image_input(model).batch or 1
    counted = {name_of(node): _macs(node, shapes) for node in model.graph if multiplies(node)}
    return {name: None if macs is None else macs // pictures for name, macs in counted.items()}


def total_macs(model: ir.Model, *, size: int | None = None) -> int | None:
    """Return the multiply-accumulates of a model for one picture; ``None`` where a shape can't be inferred.

    Raises:
        ModelFileError: It has no image input.
    """
    macs = list(macs_of(model, size=size).values())
    known = [count for count in macs if count is not None]
    return sum(known) if len(known) == len(macs) else None


def operations_of(model: ir.Model, *, size: int | None = None) -> dict[str, int]:
    """Return the operations of every node of a float model, by its name, for one picture.

    They are the multiply-accumulates of what multiplies with a weight, and the elements of the result of anything else.

    Raises:
        ModelFileError: It has no image input.
    """
    shapes = tensor_shapes(model, size or picture_size(model))
    pictures = image_input(model).batch or 1
    macs = macs_of(model, size=size)
    return {
        name_of(node): macs.get(name_of(node)) or math.prod(shapes.get(str(node.outputs[0].name), ())) // pictures
        for node in model.graph
    }


def _stated(value: ir.Value) -> tuple[int, ...]:
    """Return the shape that a value states, with 1 for what is open: the batch."""
    return () if value.shape is None else tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _macs(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the multiply-accumulates of a node for what its shapes hold; ``None`` if they are not known."""
    picture, weight = (_shape(node, index, shapes) for index in _OPERANDS[node.op_type])
    result = shapes.get(str(node.outputs[0].name), ())
    if not all(shape and min(shape) > 0 for shape in (picture, weight, result)):
        return None
    if is_op(node, "ConvTranspose"):
        return math.prod(picture) * math.prod(weight[1:])
    if is_op(node, "Gemm"):
        return math.prod(result) * picture[0 if int_attribute(node, "transA", 0) else -1]
    return math.prod(result) * (picture[-1] if "MatMul" in node.op_type else math.prod(weight[1:]))


def _shape(node: ir.Node, index: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    value = node.inputs[index] if index < len(node.inputs) else None
    return () if value is None else shapes.get(str(value.name), ())
