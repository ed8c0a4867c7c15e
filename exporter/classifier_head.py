"""What a classifier's output is, as its graph says: metadata may be missing, or of another file."""

from __future__ import annotations

import onnx_ir as ir

from rexport.model_file import Head, Metadata

__all__ = ["head_of"]

# what changes the shape or the type of numbers, and hardly the numbers
_SAME_NUMBERS = frozenset(
    (
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        *("Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"),
    )
)
_MOST_MEMBERS = 1000


def head_of(model: ir.Model) -> Head:
    """Return what a classifier's output is, as its graph says.

    A softmax counts, in whatever operators, and so does the average of several, an ensemble's. Where the graph ends in
    anything whose meaning is open, or there is no graph to read (an engine), the metadata says it.

    Raises:
        ModelFileError: The metadata has to say it, and can't be read.
    """
    head = _head_at(model.graph.outputs[0]) if model.graph.outputs else None
    return Metadata.of(model).head if head is None else head


def _head_at(value: ir.Value) -> Head | None:
    """Return what ``value`` is by the operators before it; ``None`` where they do not tell."""
    node = _computation_of(value)
    if node is None:
        return None
    if _is_softmax(node) or _is_average_of_softmaxes(node):
        return Head.SOFTMAX
    if node.op_type == "LogSoftmax" or (node.op_type == "Log" and _is_softmax(_computation_of(node.inputs[0]))):
        return Head.LOG_SOFTMAX
    if node.op_type == "Add":  # of a bias
        return Head.LOGITS if any(_is_weighted(_computation_of(term)) for term in node.inputs) else None
    return Head.LOGITS if _is_weighted(node) else None


def _computation_of(value: ir.Value | None) -> ir.Node | None:
    """Return the standard operator that computes ``value``, before those that change only its shape or type."""
    node = None if value is None else value.producer()
    while node is not None and node.domain == "":
        if node.op_type not in _SAME_NUMBERS or node.inputs[0] is None:
            return node
        node = node.inputs[0].producer()
    return None


def _is_weighted(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in ("Gemm", "MatMul", "Conv")


def _is_softmax(node: ir.Node | None) -> bool:
    """Say whether ``node`` is a Softmax, or the last of its parts: exp(z) divided by their sum."""
    if node is None or node.op_type != "Div":
        return node is not None and node.op_type == "Softmax"
    powers, total = (None if value is None else value.producer() for value in node.inputs)
    return (
        powers is not None
        and total is not None
        and (powers.op_type, total.op_type) == ("Exp", "ReduceSum")
        and total.inputs[0] is node.inputs[0]
    )


def _is_average_of_softmaxes(node: ir.Node) -> bool:
    """Say whether ``node`` is a Mean of softmaxes, or their sum divided by (or times one over) their number."""
    if node.op_type == "Mean":
        return all(_is_softmax(_computation_of(value)) for value in node.inputs)
    if node.op_type not in ("Div", "Mul"):
        return False
    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs]
    position = next((i for i, tensor in enumerate(constants) if tensor is not None and tensor.size == 1), None)
    if position is None or (node.op_type, position) == ("Div", 0):
        return False
    constant = constants[position]
    assert constant is not None
    factor = float(constant.numpy().item())
    if node.op_type == "Mul" and factor:
        factor = 1 / factor
    members = round(factor) if 1 <= factor <= _MOST_MEMBERS else 0
    # float16 writes 1/3 as 0.33325
    return abs(factor - members) < 1e-2 and _is_sum_of_softmaxes(node.inputs[1 - position], members)


def _is_sum_of_softmaxes(total: ir.Value | None, count: int) -> bool:
    terms, softmaxes = [total], 0
    while terms and softmaxes + len(terms) <= count:
        node = _computation_of(terms.pop())
        if node is not None and node.op_type in ("Add", "Sum"):
            terms.extend(node.inputs)
        elif _is_softmax(node):
            softmaxes += 1
        else:
            return False
    return not terms and softmaxes == count
