"""What it costs to leave a layer in float, as an estimate that needs no measurement.

    cost = operations of the layer / operations of all layers + 1 / number of layers

Operations are multiply-accumulates of a convolution or a linear layer, and elements of the result of anything else. The
second term stands for what every float layer between integer ones costs whatever its size: a call, and the conversions
of the tensors around it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rexport.passes._graph import is_op, name_of
from rexport.tuning.comparison import picture_size
from rexport.tuning.conv_layer import tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx_ir as ir

__all__ = ["float_costs", "operations_of"]


def operations_of(model: ir.Model, *, size: int | None = None) -> dict[str, int]:
    """Return the operations of every node of a float model, by its name, for one picture.

    Args:
        model: With one image input.
        size: Height and width of its pictures, where it takes any; by default what it was exported for, or 224.

    Example:
        >>> from rexport import Preprocessing, build, export
        >>> model = export(build("cifar_resnet20"), preprocessing=Preprocessing(size=32)).model
        >>> operations_of(model)["conv1"]  # 16 maps of 32 × 32, of 3 · 3 · 3 products each
        442368
    """
    shapes = tensor_shapes(model, size or picture_size(model))
    for output in model.graph.outputs:
        shapes.setdefault(str(output.name), _stated(output))
    for name, value in model.graph.initializers.items():
        shapes.setdefault(name, _stated(value))
    return {name_of(node): _operations(node, shapes) for node in model.graph}


def float_costs(model: ir.Model, layers: Collection[str]) -> dict[str, float]:
    """Return what it costs to leave each of ``layers`` in float, relative to the others (see above)."""
    operations = operations_of(model)
    total = sum(operations[name] for name in layers) or 1
    return {name: operations[name] / total + 1 / len(layers) for name in layers}


def _stated(value: ir.Value) -> tuple[int, ...]:
    """Return the shape that a value states, with 1 for what is open: the batch."""
    return () if value.shape is None else tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _operations(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    result = math.prod(shapes.get(str(node.outputs[0].name), ()))
    if not is_op(node, "Conv", "ConvTranspose", "Gemm"):
        return result
    read, weight = (shapes.get(str(value.name), ()) if value is not None else () for value in node.inputs[:2])
    if is_op(node, "ConvTranspose"):  # each element that is read is multiplied with (outputs / groups) kernels
        return math.prod(read) * math.prod(weight[1:])
    return result * math.prod(weight[1:])
