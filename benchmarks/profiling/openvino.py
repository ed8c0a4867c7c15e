"""The profile of OpenVINO's CPU plugin: the median of each node's times over blocks of calls.

With ``PERF_COUNT`` the plugin keeps a running mean of each node it executes, in whole microseconds, and nothing else.
The calls after warming up are read in blocks, and a block of the calls i + 1 … k took per call

    (k · mₖ − i · mᵢ) / (k − i)

where mₖ is the mean after k calls. What is reported is the median of the blocks, so that one disturbed call does not
count; it is off by a microsecond or two, which only layers that take no longer feel. The plugin's graph says which
operators each node was made from; what it calls ``Reorder`` changes the layout of a tensor.
"""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.profiling.lines import Line, Measured
from rexport.benchmarks.profiling.tags import tags_in
from rexport.runtimes.openvino import OpenVino
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = ["profile"]

_PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_ORIGINS = "originalLayersNames"
_BLOCKS = 5


def profile(path: Path, images: np.ndarray, *, threads: int, warm_up: int, calls: int) -> Measured:
    """Run a model whose nodes are tagged and return what each of its parts took.

    Raises:
        UnavailableError: OpenVINO is not installed.
        ModelFileError: It refuses the model.
    """
    with OpenVino(Source(path=path), threads=threads, count_times=True) as runtime:
        request = runtime.request((images.shape,))
        for _ in range(warm_up):
            request.infer([images])
        call_seconds: list[float] = []
        sums = [_sums(request, warm_up)]
        while len(call_seconds) < calls:
            for _ in range(-(-calls // _BLOCKS)):
                start = time.perf_counter()
                request.infer([images])
                call_seconds.append(time.perf_counter() - start)
            sums.append(_sums(request, warm_up + len(call_seconds)))
        calls_per_block = len(call_seconds) / (len(sums) - 1)
        seconds = {name: median((b[name] - a[name]) / calls_per_block for a, b in pairwise(sums)) for name in sums[0]}
        executed = [info for info in request.get_profiling_info() if info.status == type(info).Status.EXECUTED]
        graph = request.get_compiled_model().get_runtime_model().get_ordered_ops()
        facts = {node.get_friendly_name(): node.get_rt_info() for node in graph}
        nodes = {name: tags_in(info[_ORIGINS].astype(str)) for name, info in facts.items() if _ORIGINS in info}
        lines = tuple(_line(i, nodes.get(i.node_name, ()), max(seconds[i.node_name], 0.0)) for i in executed)
    return Measured(lines=lines, call_seconds=median(call_seconds))


def _sums(request: Any, calls: int) -> dict[str, float]:
    """Return the seconds of each node in all calls so far, of which there were so many."""
    half = 0.5e-6  # means are cut off to whole microseconds
    infos = request.get_profiling_info()
    return {info.node_name: calls * (info.real_time.total_seconds() + half) for info in infos}


def _line(info: Any, nodes: tuple[int, ...], seconds: float) -> Line:
    operator = None  # is that of the nodes
    if not nodes:
        operator = {"Reorder": "layout change", "Transpose": "layout change"}.get(info.node_type, info.node_type)
    kind = info.exec_type.rpartition("_")[2].lower()
    return Line(
        kernel=info.exec_type,
        operator=operator,
        precision=_PRECISIONS.get(kind, kind),
        nodes=nodes,
        seconds=seconds,
    )
