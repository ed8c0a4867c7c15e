"""The process that profiles one model: ``python -m rexport.benchmarks.profiling.worker``.

It reads one JSON object from stdin,

    {"do": "profile", "runtime": "cpu", "path": "m.onnx", "shape": [8, 3, 224, 224], "dtype": "float32", "threads": 2,
     "warm_up": 5, "calls": 20}

and answers on stdout with the profile (see ``lines.Measured``), or an error, as ``rexport.benchmarks.worker`` does.
What libraries print goes to stderr.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from rexport._child import answer_requests
from rexport.benchmarks.inputs import random_images

__all__ = ["PROFILERS"]

PROFILERS = {
    "cpu": "rexport.benchmarks.profiling.onnxruntime",
    "openvino": "rexport.benchmarks.profiling.openvino",
}


def _profile(request: dict[str, Any]) -> dict[str, Any]:
    images = random_images(request["shape"], request["dtype"])
    measured = import_module(PROFILERS[request["runtime"]]).profile(
        Path(request["path"]), images, threads=request["threads"], warm_up=request["warm_up"], calls=request["calls"]
    )
    reply: dict[str, Any] = measured.to_json()
    return reply


if __name__ == "__main__":
    answer_requests(_profile)
