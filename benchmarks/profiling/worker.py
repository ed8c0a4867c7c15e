"""The process that profiles one model: ``python -m rexport.benchmarks.profiling.worker``.

It reads one JSON object from stdin,

    {"runtime": "cpu", "path": "m.onnx", "shape": [8, 3, 224, 224], "dtype": "float32", "threads": 2,
     "cores": [0, 1], "warm_up": 5, "calls": 20}

and answers on stdout with the profile (see ``lines.Measured``), or an error, as ``rexport.benchmarks.worker`` does.
What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rexport.benchmarks.affinity import keep_on
from rexport.runtimes._stdout import claim_stdout

__all__ = ["PROFILERS", "main"]

PROFILERS = {
    "cpu": "rexport.benchmarks.profiling.onnxruntime",
    "openvino": "rexport.benchmarks.profiling.openvino",
}


def main() -> None:
    """Answer the one request on stdin."""
    replies = claim_stdout()
    try:
        reply = _profile(json.loads(sys.stdin.read()))
    except Exception as error:  # each runtime raises its own
        reply = {"error": " ".join(str(error).split()) or type(error).__name__, "kind": type(error).__name__}
    print(json.dumps(reply), file=replies, flush=True)


def _profile(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["cores"]:  # before the runtime starts its threads
        keep_on(0, asked["cores"])
    random = np.random.default_rng(0)
    shape = asked["shape"]
    images = (
        random.integers(0, 256, shape, np.uint8)
        if asked["dtype"] == "uint8"
        else random.standard_normal(shape, np.float32)
    )
    measured = import_module(PROFILERS[asked["runtime"]]).profile(
        Path(asked["path"]), images, threads=asked["threads"], warm_up=asked["warm_up"], calls=asked["calls"]
    )
    reply: dict[str, Any] = measured.to_json()
    return reply


if __name__ == "__main__":
    main()
