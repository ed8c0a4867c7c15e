"""The profile of ONNX Runtime: the median of each node's kernel times over the calls.

A session with profiling writes an event for each node of each call, with the types of what the node reads, and one for
the whole call after them. An integer convolution is ``QLinearConv``; one that could not be fused is ``Conv`` of float.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.profiling.lines import Line, Measured
from rexport.benchmarks.profiling.tags import tags_in
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    import numpy as np

__all__ = ["operator_of", "profile"]

_PRECISIONS = {"uint8": "int8", "float": "float32", "float16": "float16", "bfloat16": "bfloat16"}
_REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")  # the last unless it is the file's own
_PREFIXES = re.compile(r"^(?:QLinear|NhwcFused|Fused|Nhwc)(?=[A-Z])")
_RENAMED = {"QGemm": "Gemm", "MatMulIntegerToFloat": "MatMul", "DynamicQuantizeMatMul": "MatMul"}


def profile(path: Path, images: np.ndarray, *, threads: int, warm_up: int, calls: int) -> Measured:
    """Run a model whose nodes are tagged and return what each of its parts took.

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, threads=threads, profile_to=Path(folder) / "profile")
        name = session.get_inputs()[0].name
        for _ in range(warm_up + calls):
            session.run(None, {name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _measured(events, warm_up)


def _measured(events: list[dict[str, Any]], warm_up: int) -> Measured:
    """Return the medians of the calls after the first ``warm_up``."""
    described: dict[tuple[str, str], dict[str, Any]] = {}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    calls: list[float] = []
    for event in events:
        elapsed = event["dur"] * 1e-6
        if event["name"] == "model_run":
            calls.append(elapsed)
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and len(calls) >= warm_up:
            key = event["name"], event["args"]["node_index"]
            described.setdefault(key, event)
            seconds[key].append(elapsed)
    lines = tuple(_line(event, median(seconds[key])) for key, event in described.items())
    return Measured(lines=lines, call_seconds=median(calls[warm_up:]))


def _line(event: dict[str, Any], seconds: float) -> Line:
    kernel = event["args"]["op_name"]
    nodes = tags_in(event["name"])
    reads = next((kind for tensor in event["args"].get("input_type_shape", ()) for kind in tensor), "none")
    inserted = kernel in _REORDERS and not nodes
    return Line(
        kernel=kernel,
        operator="layout change" if inserted else operator_of(kernel),
        precision=_PRECISIONS.get(reads, reads),
        nodes=nodes,
        seconds=seconds,
    )


def operator_of(kernel: str) -> str:
    """Return the operator of ONNX that one of ONNX Runtime's own computes.

    Example:
        >>> operator_of("QLinearConv"), operator_of("NhwcFusedConv"), operator_of("MaxPool")
        ('Conv', 'Conv', 'MaxPool')
    """
    return _RENAMED.get(kernel) or _PREFIXES.sub("", kernel)
