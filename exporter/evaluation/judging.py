"""What an INT8 file is judged with on this machine: the runtime that it is for, or else what the file says.

ONNX Runtime would make integers of layers that a file for another runtime leaves in float, with one scale for a whole
weight (its optimizer ``WeightBiasQuantization``); what a file for TensorRT is worth is therefore seen node by node.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rexport._errors import RexportError
from rexport._progress import Progress, silent
from rexport.evaluation.candidate import Candidate
from rexport.evaluation.divergence import find_divergence
from rexport.evaluation.reference import Reference
from rexport.model_file import Metadata
from rexport.quantization import ONNX_RUNTIME, OPENVINO, TARGETS

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from rexport.evaluation.divergence import TensorRow
    from rexport.quantization import Target

__all__ = ["NODE_BY_NODE", "judging_runtime", "judging_runtime_for", "weakest_tensor"]

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


def weakest_tensor(
    reference: ir.Model,
    quantized: ir.Model,
    images: np.ndarray,
    *,
    runtime: str,
    threads: int | None = None,
    progress: Progress = silent,
) -> TensorRow | None:
    """Return the first tensor of ``quantized`` that differs from ``reference``, or the one that differs most.

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
    replace(Metadata.of(bare), quantization=None).write_to(
        bare
    )  # it says that tensors are scaled; here both have them so
    candidate = Candidate(model=bare, runtime=runtime, images=images, threads=threads)
    try:
        report = find_divergence(Reference(reference, images, threads=threads), candidate, progress=progress)
    except RexportError:
        return None
    if report.first is not None:
        return report.first.row
    return min(report.rows, key=lambda row: row.difference.sqnr_db, default=None)
