"""The runtime to judge an INT8 file with on this machine: the one that it is for, or else ONNX Runtime node by node.

ONNX Runtime would quantize layers that a file for another runtime leaves in float, with one scale for a whole weight
(its optimizer ``WeightBiasQuantization``); a file for TensorRT is therefore judged node by node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rexport._errors import RexportError
from rexport._progress import Progress, silent
from rexport.evaluation.candidate import Candidate
from rexport.evaluation.divergence import find_divergence
from rexport.evaluation.reference import Reference
from rexport.model_file import Metadata
from rexport.passes._graph import is_op, name_of
from rexport.quantization import ONNX_RUNTIME, OPENVINO, TARGETS, X86
from rexport.runtimes import NODE_BY_NODE

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from rexport.quantization import Target

__all__ = ["WeakLayer", "judging_runtime", "judging_runtime_for", "weakest_layer"]


def judging_runtime_for(target: Target) -> str:
    """Return the name of the runtime to judge a file for ``target`` with (see ``rexport.runtimes``)."""
    if target.runtime == ONNX_RUNTIME:
        return "cpu"
    if target.runtime == OPENVINO.runtime and find_spec("openvino"):
        return "openvino"
    return NODE_BY_NODE


def judging_runtime(model: ir.Model) -> str:
    """Return the name of the runtime to judge ``model`` with, by the target in its metadata."""
    name = json.loads(Metadata.of(model).quantization or "{}").get("target")
    return judging_runtime_for(TARGETS.get(name, X86))


@dataclass(frozen=True, kw_only=True)
class WeakLayer:
    """A tensor, how far it is off, and the name and operator of the node that computes it; ``None`` for an input."""

    tensor: str
    sqnr_db: float
    node: str | None = None
    op_type: str | None = None

    def __str__(self) -> str:
        """Name it."""
        origin = "which the model is given"
        if self.node is not None:
            origin = f"of {self.node} ({self.op_type})"
        return f"the tensor {self.tensor}, {origin}: {self.sqnr_db:.1f} dB"


def weakest_layer(
    reference: ir.Model,
    quantized: ir.Model,
    images: np.ndarray,
    *,
    runtime: str,
    threads: int | None = None,
    progress: Progress = silent,
) -> WeakLayer | None:
    """Return the first layer of ``quantized`` that differs from ``reference``, or the one that differs most.

    Args:
        reference: A model with the same tensors: the float model, equalized as ``quantized`` was; or itself.
        quantized: The INT8 model.
        images: The inputs of both, ``(N, ...)``.
        runtime: The runtime of ``quantized``; ``reference`` is computed node by node.
        threads: By default one per usable core.
        progress: Reports every run.

    Returns:
        ``None`` where the models can't be taken apart.
    """
    bare = quantized.clone()
    # find_divergence refuses files that say their tensors were scaled; here those of the reference were too
    replace(Metadata.of(bare), quantization=None).write_to(bare)
    candidate = Candidate(model=bare, runtime=runtime, images=images, threads=threads)
    try:
        report = find_divergence(Reference(reference, images, threads=threads), candidate, progress=progress)
    except RexportError:
        return None
    rows = [report.first.row] if report.first else report.rows
    if not rows:
        return None
    row = min(rows, key=lambda row: row.difference.sqnr_db)
    value = _computed(quantized, row.tensor)
    node, layer = value.producer(), WeakLayer(tensor=str(value.name), sqnr_db=row.difference.sqnr_db)
    return replace(layer, node=name_of(node), op_type=node.op_type) if node else layer


def _computed(model: ir.Model, tensor: str) -> ir.Value:
    """Return the result of an operator that ``tensor`` is, before it was rectified and stored as integers."""
    value = next(value for node in model.graph for value in node.outputs if value.name == tensor)
    while is_op(node := value.producer(), "QuantizeLinear", "DequantizeLinear", "Relu", "Clip"):
        assert node.inputs[0] is not None
        value = node.inputs[0]
    return value
