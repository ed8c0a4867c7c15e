"""What can be computed now is not computed on the device: onnxscript's constant folding, and the clean-up after it."""

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
from rexport.passes._graph import add_initializer, constant, int_attribute, is_op, varying

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rexport.passes._base import PassResult

__all__ = ["FoldConstants"]

# What is larger than all that it is computed from (Expand, Tile, ConstantOfShape, Range …) makes the file larger, and
# may have so many numbers: the widths of a Pad, or one for each channel of the widest layers.
_SMALL = 4096
_ANY_SIZE = 2**31
# Weights that are stored as integers stay integers.
_KEPT = {"QuantizeLinear", "DequantizeLinear"}
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What these give is no tensor, whatever the library infers.
_SEQUENCES = {
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
    "Optional",
}
# Initializers that are listed as inputs too were mandatory before IR version 4, and no choice of a caller's. Since then
# they are defaults; but who lists weights (PyTorch's keep_initializers_as_inputs) has listed all there is.
_INPUTS_ARE_CHOICES = 4


class FoldConstants(GraphPass):
    """Folds constants, moves them to initializers, infers shapes, and removes nodes that nothing reads.

    Weights that are listed among the inputs are constants too, and no inputs any more; a note says how many.
    """

    summary = "constant expressions and dead nodes go"

    def call(self, model: ir.Model) -> PassResult:
        """Run the library's passes one after the other; ``changed`` counts the nodes and the inputs that went."""
        before, notes = len(model.graph), []
        is_old = model.ir_version is not None and model.ir_version < _INPUTS_ARE_CHOICES
        taken = _take_from_inputs(model) if is_old or _lists_weights(model) else 0
        if is_old:
            model.ir_version = _INPUTS_ARE_CHOICES
        elif taken:
            notes.append(f"{taken} initializers were inputs too; they are constants now, with the values in the file.")
        with _quiet():
            self._fold(model)
        return self.result(model, changed=max(before - len(model.graph), 0) + taken, notes=notes)

    def _fold(self, model: ir.Model) -> None:
        common.InlinePass()(model)
        _infer_shapes(model)
        left = len(model.graph) + 1
        while len(model.graph) < left:  # what was folded may let more shapes be known, and those more be folded
            left = len(model.graph)
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
    """Let initializers be no inputs, and return how many were."""
    before = len(model.graph.inputs)
    common.RemoveInitializersFromInputsPass()(model)
    return before - len(model.graph.inputs)


def _ending_as_weights(graph: ir.Graph) -> set[ir.Value]:
    """Return the tensors that are computed from constants alone, and lead to a layer's weight by such alone."""
    depending = varying(graph, kept=_KEPT)
    weights: set[ir.Value] = set()
    for node in reversed(graph):
        if is_op(node, *_LAYERS) or any(value in weights and value not in depending for value in node.outputs):
            weights.update(value for value in node.inputs if value is not None)
    return weights - depending


def _should_fold(node: ir.Node, weights: Collection[ir.Value]) -> bool | None:
    """Say whether to fold a node whose inputs are constant; ``None`` leaves it to the library.

    Weights are folded whatever their size, so that a layer has them as a constant. All else is where the result is no
    larger than what it is computed from, or small.
    """
    if any(value is not None and value.dtype == ir.DataType.STRING for value in (*node.inputs, *node.outputs)):
        return False  # the library would make text that it can't write
    if node.op_type in _KEPT:
        return False
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return None
    read = sum(value.const_value.size for value in node.inputs if value is not None and value.const_value is not None)
    return prod(shape.numpy()) <= max(_SMALL, read) or node.outputs[0] in weights


def _fold_splits(graph: ir.Graph) -> None:
    """Fold each Split of a constant, which the library leaves for its several results."""
    for node in list(graph):
        array = constant(node.inputs[0]) if is_op(node, "Split") else None
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
    """Infer shapes and types where the library's pass does it without harm.

    It loses the weights of a model with text among them, and takes the results of sequence operators for tensors.
    """
    scopes = [model.graph, *model.graph.subgraphs()]
    if any(value.dtype == ir.DataType.STRING for scope in scopes for value in scope.initializers.values()):
        return
    others = [v for node in model.graph.all_nodes() if node.op_type in _SEQUENCES for v in node.outputs]
    types = [value.type for value in others]
    common.ShapeInferencePass()(model)
    for value, known in zip(others, types, strict=True):
        value.type = known


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' warnings of what they could not fold or infer to themselves: such nodes just stay."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
