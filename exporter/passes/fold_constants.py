"""Constants are computed now and not on the device: onnxscript's constant folding, and the clean-up after it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from rexport.passes._base import GraphPass
from rexport.passes._graph import WEIGHTED, add_initializer, constant, inputs_of, int_attribute, is_op, varying
from rexport.passes._quantized import dequantized_weight, integer_operators

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rexport.passes._base import PassResult

__all__ = ["FoldConstants"]

# A result with more numbers than its inputs (of Expand, Tile, ConstantOfShape, Range …) makes the file larger, and may
# have at most so many: enough for the widths of a Pad, or one number for each channel of the widest layers.
_SMALL = 4096
_ANY_SIZE = 2**31
# Weights that are stored as integers stay integers in a model that computes with integers.
_KEPT = {"QuantizeLinear", "DequantizeLinear"}
# The results of these are no tensors, whatever the library infers.
_SEQUENCES = {
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
    "Optional",
}
# Before IR version 4 initializers had to be listed as inputs too, which made them no choice of a caller's. Since then a
# listed one is a default; but a file that lists weights (PyTorch's keep_initializers_as_inputs) lists them all.
_INPUTS_ARE_CHOICES = 4


class FoldConstants(GraphPass):
    """Folds constants, moves them to initializers, infers shapes, and removes nodes that nothing reads.

    Weights that are listed among the inputs become constants; a note says how many.
    """

    summary = "computes constant expressions, removes dead nodes"

    def call(self, model: ir.Model) -> PassResult:
        """Run the library's passes one after the other; ``changed`` counts the nodes and the inputs that went."""
        before, notes = len(model.graph), []
        is_old = model.ir_version is not None and model.ir_version < _INPUTS_ARE_CHOICES
        listed = _take_from_inputs(model) if is_old or _lists_weights(model) else 0
        if is_old:
            model.ir_version = _INPUTS_ARE_CHOICES
        elif listed:
            notes.append(f"{listed} initializers were inputs too; they are constants now, with the values in the file.")
        with _quiet():
            self._fold(model)
        return self.result(model, changed=max(before - len(model.graph), 0) + listed, notes=notes)

    def _fold(self, model: ir.Model) -> None:
        common.InlinePass()(model)
        _infer_shapes(model)
        _dequantize_weights(model)
        nodes = len(model.graph) + 1
        while len(model.graph) < nodes:  # shapes inferred after a fold may allow further folds
            nodes = len(model.graph)
            _fold_splits(model.graph)
            should_fold = partial(_should_fold, weights=_ending_as_weights(model.graph))
            optimizer.fold_constants(model, output_size_limit=_ANY_SIZE, should_fold=should_fold)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
            common.RemoveUnusedNodesPass()(model)
            _infer_shapes(model)


def _lists_weights(model: ir.Model) -> bool:
    """Say whether one of the inputs is an initializer of more than a single number."""
    stored = [value.const_value for value in model.graph.inputs if value.is_initializer()]
    return any(tensor is not None and tensor.size > 1 for tensor in stored)


def _take_from_inputs(model: ir.Model) -> int:
    """Remove the initializers from the inputs, and return how many there were."""
    before = len(model.graph.inputs)
    common.RemoveInitializersFromInputsPass()(model)
    return before - len(model.graph.inputs)


def _ending_as_weights(graph: ir.Graph) -> set[ir.Value]:
    """Return the tensors from which a layer's weight is computed, if all on the way depends on constants alone."""
    depending = varying(graph, results_of=_KEPT)
    weights: set[ir.Value] = set()
    for node in reversed(graph):
        if is_op(node, *WEIGHTED) or any(value in weights and value not in depending for value in node.outputs):
            weights.update(inputs_of(node))
    return weights - depending


def _dequantize_weights(model: ir.Model) -> None:
    """Fold each DequantizeLinear of a constant in a model that computes with floats, where integers only save space."""
    nodes = [node for node in model.graph if is_op(node, "DequantizeLinear")]
    if not nodes or integer_operators(model):
        return
    for node in nodes:
        result, array = node.outputs[0], dequantized_weight(node)
        if array is not None and not result.is_graph_output():
            name, result.name = str(result.name), None
            ir.convenience.replace_all_uses_with(result, add_initializer(model.graph, name, array))
            model.graph.remove(node, safe=True)


def _should_fold(node: ir.Node, weights: Collection[ir.Value]) -> bool | None:
    """Say whether to fold a node whose inputs are constant; ``None`` leaves it to the library.

    Weights are folded whatever their size, so that a layer has them as a constant. Other results are folded if they are
    small, or no larger than their inputs.
    """
    if any(value.dtype == ir.DataType.STRING for value in (*inputs_of(node), *node.outputs)):
        return False  # the library would make text that it can't write
    if node.op_type in _KEPT:
        return False
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return None
    read = sum(value.const_value.size for value in inputs_of(node) if value.const_value is not None)
    return prod(shape.numpy()) <= max(_SMALL, read) or node.outputs[0] in weights


def _fold_splits(graph: ir.Graph) -> None:
    """Fold each Split of a constant, which the library leaves as it has several results."""
    for node in [node for node in graph if is_op(node, "Split")]:
        array = constant(node.inputs[0])
        shapes = [value.shape for value in node.outputs if value.shape is not None and value.shape.is_static()]
        is_output = any(value.is_graph_output() for value in node.outputs)
        if array is None or is_output or len(shapes) != len(node.outputs):
            continue
        axis = int_attribute(node, "axis", 0)
        ends = np.cumsum([shape.numpy()[axis] for shape in shapes])[:-1]
        for value, part in zip(node.outputs, np.split(array, ends, axis), strict=True):
            name, value.name = str(value.name), None
            ir.convenience.replace_all_uses_with(value, add_initializer(graph, name, part))
        graph.remove(node, safe=True)


def _infer_shapes(model: ir.Model) -> None:
    """Infer shapes and types where the library's pass does no harm.

    It loses the weights of a model with strings among them, and takes the results of sequence operators for tensors.
    """
    scopes = [model.graph, *model.graph.subgraphs()]
    if any(value.dtype == ir.DataType.STRING for scope in scopes for value in scope.initializers.values()):
        return
    sequences = [v for node in model.graph.all_nodes() if node.op_type in _SEQUENCES for v in node.outputs]
    types = [value.type for value in sequences]
    common.ShapeInferencePass()(model)
    for value, type_ in zip(sequences, types, strict=True):
        value.type = type_


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' warnings about nodes that they can't fold or infer: such nodes just stay."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
