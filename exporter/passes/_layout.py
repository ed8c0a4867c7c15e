"""Operators on transposed tensors: which compute the same on x' = Transpose(x, order), and what they need for it.

    f(Transpose(x))  =  Transpose(f(x))      numbers by themselves, and broadcasts of tensors with as many axes
    f(Transpose(x), axes)  =  Transpose(f(x, the axes as they were))
    Transpose(x) W  =  Transpose(x ∗ Wᵀ)     a product with a constant matrix is a convolution of 1×1

Axis i of x' is axis order[i] of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._graph import (
    add_initializer,
    axes_of,
    constant,
    contents_of,
    free_name,
    graph_of,
    input_at,
    int_attribute,
    integers_in,
    is_op,
    replace_initializer,
    replace_node,
    shape_of,
)
from rexport.passes._transpose import Order, is_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Move", "move_of"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """How a node computes on transposed tensors.

    Attributes:
        inputs: The indices of the inputs that it reads transposed; constants among them are transposed now.
        gives_transposed: Whether its results are transposed too; a reduction, for example, gives what it gave.
        change: Changes its attributes and its other inputs, once it reads transposed tensors.
    """

    inputs: tuple[int, ...] = (0,)
    gives_transposed: bool = True
    change: Callable[[ir.Node], None] | None = None


def move_of(node: ir.Node, order: Order) -> Move | None:
    """Return how a node computes on tensors transposed by ``order``, or ``None`` if it can't."""
    rule = _RULES.get(node.op_type)
    if node.domain or rule is None or not isinstance(node.graph, ir.Graph) or opset_of(node.graph) < 7:
        return None
    return rule(node, order)


# numbers by themselves


def _single(node: ir.Node, _order: Order) -> Move | None:
    """An operator on each number, with parameters that are one number for all, if any."""
    parameters = (value for value in node.inputs[1:] if value is not None)
    return Move() if all(_is_one_number(value) for value in parameters) else None


def _is_one_number(value: ir.Value) -> bool:
    array = constant(value)
    if array is not None:
        return array.size == 1
    return value.shape is not None and len(value.shape) == 0


def _broadcast(node: ir.Node, order: Order) -> Move | None:
    indices, has_tensor = [], False
    for index, value in enumerate(node.inputs):
        if value is None:
            return None
        array, rank = constant(value), len(order)
        if array is not None and array.ndim <= rank:
            if array.size > 1:
                indices.append(index)
        elif array is None and len(shape_of(value)) == rank:
            indices.append(index)
            has_tensor = True
        elif not _is_one_number(value) or array is not None:
            return None
    return Move(inputs=tuple(indices)) if has_tensor else None


# one axis


def _along_axis(default: int) -> Callable[[ir.Node, Order], Move | None]:
    def rule(node: ir.Node, order: Order) -> Move | None:
        if is_op(node, "Softmax", "LogSoftmax", "Hardmax") and opset_of(graph_of(node)) < 13:
            return None  # it joined all axes from this one on
        inputs = tuple(range(len(node.inputs))) if is_op(node, "Concat") else (0,)
        return Move(inputs=inputs, change=lambda node: _move_axis(node, default, order))

    return rule


def _move_axis(node: ir.Node, default: int, order: Order) -> None:
    axis = int_attribute(node, "axis", default) % len(order)
    node.attributes.add(ir.AttrInt64("axis", order.index(axis)))


def _extreme_index(node: ir.Node, order: Order) -> Move | None:
    """ArgMax and ArgMin."""
    keeps = bool(int_attribute(node, "keepdims", 1))
    axis = int_attribute(node, "axis", 0) % len(order)
    if not keeps and not _leaves_order(order, [axis]):
        return None
    return Move(gives_transposed=keeps, change=lambda node: _move_axis(node, 0, order))


# some axes


def _reduction(node: ir.Node, order: Order) -> Move | None:
    axes, keeps = axes_of(node), bool(int_attribute(node, "keepdims", 1))
    if not axes or (not keeps and not _leaves_order(order, axes)):
        return None
    return Move(gives_transposed=keeps, change=_axes_change(axes, order))


def _squeeze(node: ir.Node, order: Order) -> Move | None:
    axes = axes_of(node)
    if not axes or len(shape_of(node.inputs[0])) != len(order) or not _leaves_order(order, axes):
        return None
    return Move(gives_transposed=False, change=_axes_change(axes, order))


def _unsqueeze(node: ir.Node, order: Order) -> Move | None:
    axes = axes_of(node)
    if not axes or len(shape_of(node.outputs[0])) != len(order) or not _leaves_order(order, axes):
        return None
    return Move(inputs=(), change=_axes_change(axes, order))


def _leaves_order(order: Order, axes: Sequence[int]) -> bool:
    """Say whether the axes other than these stand in their order in a transposed tensor."""
    gone = {axis % len(order) for axis in axes}
    return is_in_order([axis for axis in order if axis not in gone])


def _axes_change(axes: Sequence[int], order: Order) -> Callable[[ir.Node], None]:
    """Return what gives a node its axes in a transposed tensor."""
    new = sorted(order.index(axis % len(order)) for axis in axes)

    def change(node: ir.Node) -> None:
        if input_at(node, 1) is None:
            node.attributes.add(ir.AttrInt64s("axes", new))
        else:
            _set_integers(node, 1, new)

    return change


def _set_integers(node: ir.Node, index: int, integers: Sequence[int]) -> None:
    old = input_at(node, index)
    name = f"{node.outputs[0].name}.axes" if old is None else str(old.name)
    replace_initializer(node, index, np.array(integers, np.int64), name=name)


# the sizes of all axes


def _pad(node: ir.Node, order: Order) -> Move | None:
    rank = len(order)
    if axes := integers_in(input_at(node, 3)):
        moved = [order.index(axis % rank) for axis in axes]
        return Move(change=lambda node: _set_integers(node, 3, moved))
    widths = integers_in(input_at(node, 1)) if len(node.inputs) > 1 else node.attributes.get_ints("pads")
    if input_at(node, 3) is not None or widths is None or len(widths) != 2 * rank:
        return None
    new = [widths[half + axis] for half in (0, rank) for axis in order]

    def change(node: ir.Node) -> None:
        if len(node.inputs) > 1:
            _set_integers(node, 1, new)
        else:
            node.attributes.add(ir.AttrInt64s("pads", new))

    return Move(change=change)


def _slice(node: ir.Node, order: Order) -> Move | None:
    is_attribute, axes = len(node.inputs) == 1, integers_in(input_at(node, 3))
    if is_attribute:
        axes = node.attributes.get_ints("axes")
    if axes is None:
        starts = node.attributes.get_ints("starts") if is_attribute else integers_in(node.inputs[1])
        if starts is None or input_at(node, 3) is not None:
            return None
        axes = range(len(starts))
    new = [order.index(axis % len(order)) for axis in axes]

    def change(node: ir.Node) -> None:
        if is_attribute:
            node.attributes.add(ir.AttrInt64s("axes", new))
        else:
            _set_integers(node, 3, new)

    return Move(change=change)


def _resize(node: ir.Node, order: Order) -> Move | None:
    """Resize and Upsample, in the modes that ONNX Runtime has for any axes."""
    if node.attributes.get_string("mode", "nearest") not in ("nearest", "linear"):
        return None
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return None
    if axes := node.attributes.get_ints("axes"):
        new = [order.index(axis % len(order)) for axis in axes]
        return Move(change=lambda node: node.attributes.add(ir.AttrInt64s("axes", new)))
    first = 1 if len(node.inputs) == 2 else 2  # the region of interest is not read in these modes
    sizes = {index: constant(value) for index, value in enumerate(node.inputs) if index >= first and value is not None}
    if len(node.inputs) < 2 or any(array is None or array.size not in (0, len(order)) for array in sizes.values()):
        return None

    def change(node: ir.Node) -> None:
        for index, array in sizes.items():
            if array is not None and array.size:
                replace_initializer(node, index, array[list(order)], name=f"{node.outputs[0].name}.sizes")

    return Move(change=change)


def _tile(node: ir.Node, order: Order) -> Move | None:
    repeats = integers_in(input_at(node, 1))
    if repeats is None or len(repeats) != len(order):
        return None
    new = [repeats[axis] for axis in order]
    return Move(change=lambda node: _set_integers(node, 1, new))


# other shapes


def _reshape(node: ir.Node, order: Order) -> Move | None:
    """A Reshape of, or to, a tensor whose transposition moves nothing, as all but some axes have one element."""
    before, after, target = shape_of(node.inputs[0]), shape_of(node.outputs[0]), integers_in(input_at(node, 1))
    copies = () if target is None or int_attribute(node, "allowzero", 0) else _places(target, 0)
    if len(before) == len(after) or any(order[axis : axis + 1] != (axis,) for axis in copies):
        return None
    if len(before) == len(order) and _moves_nothing(before, order):
        return Move(gives_transposed=False)
    if target is not None and len(after) == len(target) == len(order) and _moves_nothing(after, order):
        new = [target[axis] for axis in order]
        return Move(inputs=(), change=lambda node: _set_integers(node, 1, new))
    return None


def _places(numbers: Sequence[int], number: int) -> Sequence[int]:
    return [index for index, other in enumerate(numbers) if other == number]


def _flatten(node: ir.Node, order: Order) -> Move | None:
    shape, axis = shape_of(node.inputs[0]), int_attribute(node, "axis", 1) % (len(order) + 1)
    if len(shape) != len(order) or not _moves_nothing(shape, order):
        return None
    rows, new_rows = ([old for old in axes[:axis] if shape[old] != 1] for axes in (range(len(order)), order))
    return Move(gives_transposed=False) if rows == new_rows else None


def _moves_nothing(shape: Sequence[object], order: Order) -> bool:
    return is_in_order([axis for axis in order if shape[axis] != 1])


def _shape(node: ir.Node, order: Order) -> Move | None:
    """The sizes of a tensor, by the axes that it had; where one is picked, the one of the new axis is."""
    if node.attributes or node.outputs[0].is_graph_output():  # since opset 15, attributes choose some of them
        return None
    return Move(gives_transposed=False, change=lambda node: _pick_sizes(node, order))


def _pick_sizes(node: ir.Node, order: Order) -> None:
    sizes, graph, rest = node.outputs[0], graph_of(node), []
    for reader, index in sizes.uses():
        picked = constant(input_at(reader, 1)) if is_op(reader, "Gather") and index == 0 else None
        if picked is None or reader.graph is not graph:
            rest.append((reader, index))
            continue
        new = np.array([order.index(int(axis) % len(order)) for axis in picked.reshape(-1)], np.int64)
        replace_initializer(reader, 1, new.reshape(picked.shape), name=f"{reader.outputs[0].name}.axis")
    if rest:
        axes = add_initializer(graph, f"{sizes.name}.axes", np.array([order.index(axis) for axis in range(len(order))]))
        gather = ir.node("Gather", [sizes, axes], name=free_name(graph, f"{sizes.name}_picked"))
        (result,) = gather.outputs
        result.name, result.type, result.shape = gather.name, sizes.type, sizes.shape
        graph.insert_after(node, gather)
        for reader, index in rest:
            reader.replace_input_with(index, result)


# channels


def _global_pool(_node: ir.Node, order: Order) -> Move | None:
    return Move() if order[:2] == (0, 1) else None


def _product(node: ir.Node, order: Order) -> Move | None:
    """A product of pictures whose channels are last, which come to stand behind the batch."""
    rank, weight = len(order), constant(input_at(node, 1))
    if weight is None or weight.ndim != 2 or rank < 4 or order[:2] != (0, rank - 1) or not prod(weight.shape):
        return None
    if len(shape_of(node.inputs[0])) != rank or weight.dtype.kind != "f":
        return None
    return Move(change=_to_convolution)


def _to_convolution(node: ir.Node) -> None:
    weight, rank = contents_of(node.inputs[1]).T, len(shape_of(node.inputs[0]))
    kernel = weight.reshape(*weight.shape, *[1] * (rank - 2))
    name = f"{node.outputs[0].name}.weight"
    replace_initializer(node, 1, np.ascontiguousarray(kernel), name=name)
    replace_node(node, "Conv", node.inputs)


_RULES: dict[str, Callable[[ir.Node, Order], Move | None]] = {
    **dict.fromkeys(
        [
            *("Abs", "Ceil", "Celu", "Clip", "Cos", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor"),
            *("Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not"),
            *("QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus"),
            *("Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Cast"),
        ],
        _single,
    ),
    **dict.fromkeys(
        [
            *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min"),
            *("Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where"),
        ],
        _broadcast,
    ),
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax"], _along_axis(-1)),
    "Concat": _along_axis(0),
    "Split": _along_axis(0),
    **dict.fromkeys(["ArgMax", "ArgMin"], _extreme_index),
    **dict.fromkeys(
        [
            *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
            *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
        ],
        _reduction,
    ),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Slice": _slice,
    **dict.fromkeys(["Resize", "Upsample"], _resize),
    "Tile": _tile,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Shape": _shape,
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool"], _global_pool),
    "MatMul": _product,
}
