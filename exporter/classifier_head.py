"""The kind of a classifier's output, read from its graph: metadata may be missing, or of another file."""

from __future__ import annotations

import onnx_ir as ir

from rexport.model_file import Head, Metadata

__all__ = ["head_of"]

# operators that change the shape or the type of numbers, and hardly their values
_SAME_NUMBERS = frozenset(
    (
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        *("Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"),
    )
)
_MOST_MEMBERS = 1000


def head_of(model: ir.Model) -> Head:
    """Return whether a classifier's output is logits, their softmax, or its logarithm.

    A softmax is recognised in any operators, and so is the average of an ensemble's. Where the graph's end is
    ambiguous, or there is no graph to read (an engine), the metadata decides.

    Raises:
        ModelFileError: The metadata is needed and can't be read.
    """
    return _head_at(next(iter(model.graph.outputs), None)) or Metadata.of(model).head


def _head_at(value: ir.Value | None) -> Head | None:
    """Return the head that the operators before ``value`` make of it; ``None`` where they are ambiguous."""
    node = _computation_of(value)
    if node is None:
        return None
    if _is_softmax(node) or _is_average_of_softmaxes(node):
        return Head.SOFTMAX
    if node.op_type == "LogSoftmax" or (node.op_type == "Log" and _is_softmax(_computation_of(node.inputs[0]))):
        return Head.LOG_SOFTMAX
    layers: list[ir.Node | None] = [node]
    if node.op_type == "Add":  # of a bias
        layers = [_computation_of(term) for term in node.inputs]
    return Head.LOGITS if any(map(_is_weighted, layers)) else None


def _computation_of(value: ir.Value | None) -> ir.Node | None:
    """Return the standard operator that computes ``value``, before those that change only its shape or type."""
    node = _producer_of(value)
    while node is not None and node.domain == "":
        if node.op_type not in _SAME_NUMBERS:
            return node
        node = _producer_of(node.inputs[0])
    return None


def _producer_of(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _is_weighted(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in ("Gemm", "MatMul", "Conv")


def _is_softmax(node: ir.Node | None) -> bool:
    """Say whether ``node`` is a Softmax, or the last of its parts: exp(z) divided by their sum."""
    if node is None or node.op_type != "Div":
        return node is not None and node.op_type == "Softmax"
    powers, total = map(_producer_of, node.inputs)
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
