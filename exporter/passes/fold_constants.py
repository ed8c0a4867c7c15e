"""What can be computed now is not computed on the device: onnxscript's constant folding, and the clean-up after it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnx_ir.passes import common
from onnxscript import optimizer

from rexport.passes._base import GraphPass

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from rexport.passes._base import PassResult

__all__ = ["FoldConstants"]

# Weights that are stored as integers stay integers.
_KEPT = {"QuantizeLinear", "DequantizeLinear"}
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
        common.ShapeInferencePass()(model)
        optimizer.fold_constants(model, should_fold=lambda node: False if node.op_type in _KEPT else None)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)


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
