"""What can be computed now is not computed on the device: onnxscript's constant folding, and the clean-up after it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from rexport.passes._base import GraphPass
from rexport.passes._graph import constant, is_op

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rexport.passes._base import PassResult

__all__ = ["FoldConstants"]

# The library keeps every ConstantOfShape for the file's sake; small ones are part of how widths of a Pad are computed.
_SMALL = 64
# Weights that are stored as integers stay integers.
_KEPT = {"QuantizeLinear", "DequantizeLinear"}
# What these give is no tensor, whatever the library infers.
_SEQUENCES = {
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
    "Optional",
}
# Initializers that are listed as inputs too were mandatory before IR version 4, and no choice of a caller's.
_INPUTS_ARE_CHOICES = 4


class FoldConstants(GraphPass):
    """Folds constants, moves them to initializers, infers shapes, and removes nodes that nothing reads."""

    summary = "constant expressions and dead nodes go"

    def call(self, model: ir.Model) -> PassResult:
        """Run the library's passes one after the other; ``changed`` counts the nodes that went."""
        before = len(model.graph)
        with _quiet():
            self._fold(model)
        return self.result(model, changed=max(before - len(model.graph), 0))

    def _fold(self, model: ir.Model) -> None:
        if model.ir_version is not None and model.ir_version < _INPUTS_ARE_CHOICES:
            common.RemoveInitializersFromInputsPass()(model)
            model.ir_version = _INPUTS_ARE_CHOICES
        common.InlinePass()(model)
        _infer_shapes(model)
        left = len(model.graph) + 1
        while len(model.graph) < left:  # what was folded may let more shapes be known, and those more be folded
            left = len(model.graph)
            optimizer.fold_constants(model, should_fold=_should_fold)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
            common.RemoveUnusedNodesPass()(model)
            _infer_shapes(model)


def _should_fold(node: ir.Node) -> bool | None:
    """Say whether to fold a node whose inputs are constant; ``None`` leaves it to the library."""
    if any(value is not None and value.dtype == ir.DataType.STRING for value in (*node.inputs, *node.outputs)):
        return False  # the library would make text that it can't write
    if is_op(node, "ConstantOfShape"):
        shape = constant(node.inputs[0])
        return True if shape is not None and prod(shape.tolist()) <= _SMALL else None
    return False if node.op_type in _KEPT else None


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
