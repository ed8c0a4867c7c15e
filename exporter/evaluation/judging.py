"""What an INT8 file is judged with on this machine: the runtime that it is for, or else what the file says.

ONNX Runtime would make integers of layers that a file for another runtime leaves in float, with one scale for a whole
weight (its optimizer ``WeightBiasQuantization``); what a file for TensorRT is worth is therefore seen node by node.
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
from rexport.quantization import ONNX_RUNTIME, OPENVINO, TARGETS

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from rexport.quantization import Target

__all__ = ["NODE_BY_NODE", "WeakLayer", "judging_runtime", "judging_runtime_for", "weakest_layer"]

NODE_BY_NODE = "cpu-node-by-node"


def judging_runtime_for(target: Target) -> str:
    """Return the name of the runtime that shows what a file for ``target`` computes (see ``rexport.runtimes``)."""
    if target.runtime == ONNX_RUNTIME:
        return "cpu"
    return "openvino" if target.runtime == OPENVINO.runtime and find_spec("openvino") else NODE_BY_NODE


def judging_runtime(model: ir.Model) -> str:
    """Return the name of the runtime that shows what ``model`` computes, by what its file says of its target."""
    target = TARGETS.get(json.loads(Metadata.of(model).quantization or "{}").get("target"))
    return "cpu" if target is None else judging_runtime_for(target)


@dataclass(frozen=True, kw_only=True)
class WeakLayer:
    """A layer, by the name of its node, and the tensor in which its result is looked at: how far it is off there."""

    node: str
    op_type: str
    tensor: str
    sqnr_db: float

    def __str__(self) -> str:
        """Name it."""
        return f"the tensor {self.tensor} of {self.node} ({self.op_type}), {self.sqnr_db:.1f} dB"


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
        images: What both take, ``(N, ...)``.
        runtime: What runs ``quantized``; ``reference`` is computed node by node.
        threads: By default one per usable core.
        progress: Told of every run.

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
    rows = [report.first.row] if report.first is not None else report.rows
    if not rows:
        return None
    row = min(rows, key=lambda row: row.difference.sqnr_db)
    node = _computation_of(quantized, row.tensor)
    return WeakLayer(
        node=name_of(node),
        op_type=node.op_type,
        tensor=str(node.outputs[0].name),
        sqnr_db=row.difference.sqnr_db,
    )


def _computation_of(model: ir.Model, tensor: str) -> ir.Node:
    """Return the operator whose result ``tensor`` is, before it was rectified and stored as integers."""
    node = next(node for node in model.graph if any(value.name == tensor for value in node.outputs))
    while is_op(node, "QuantizeLinear", "DequantizeLinear", "Relu", "Clip"):
        source = node.inputs[0]
        if source is None or source.producer() is None:
            break
        node = source.producer()
    return node
