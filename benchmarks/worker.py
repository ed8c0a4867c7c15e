"""The process of one model on one runtime: ``python -m rexport.benchmarks.worker``.

It reads one JSON object a line from stdin and answers each with one on stdout:

    {"do": "load", "runtime": "cpu", "path": "m.onnx", "threads": 2}    {}
    {"do": "prepare", "shape": [8, 3, 224, 224], "dtype": "float32", "seed": 0, "preprocessing": null}     {}
    {"do": "warm up"}                                                   {"seconds": [...]}
    {"do": "run", "calls": 5}                                           {"seconds": [...]}
    {"do": "peak memory"}                                               {"mib": 180.2}

Instead of ``path``, a network of the zoo comes as ``network``, ``weights`` and ``num_classes``. With a
``preprocessing``, as a model's metadata states it, images are pixels and every call begins with it. Whatever goes
wrong comes back as ``{"error": "a sentence", "kind": "UnavailableError"}``. What libraries print goes to
stderr.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.preprocessing import Preprocessing
from rexport.runtimes import open_runtime
from rexport.runtimes._stdout import claim_stdout
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from rexport.runtimes import Runtime

__all__ = ["Worker", "main", "peak_memory_mib"]

_WARM_UP_CALLS = 3  # at least
_WARM_UP_MAX_CALLS = 50
_WARM_UP_MAX_SECONDS = 2.0
_SETTLED = 1.1  # the slowest of the last three calls over the fastest
_SHORT_BLOCK = 4  # from so many calls on, one more to warm the caches up again costs little


class Worker:
    """One loaded model and its input batch."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._images: np.ndarray | None = None
        self._preprocessing: Preprocessing | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what one command says and return the reply."""
        match command:
            case {"do": "load", "runtime": str(runtime), "threads": threads, **rest}:
                self._runtime = open_runtime(runtime, _source(rest), threads=threads)
                return {}
            case {"do": "prepare", "shape": shape, "dtype": str(dtype), "seed": seed, "preprocessing": stated}:
                self._images = _random_images(shape, dtype, seed)
                self._preprocessing = None if stated is None else Preprocessing.from_json(stated)
                return {}
            case {"do": "warm up"}:
                return {"seconds": self._warm_up()}
            case {"do": "run", "calls": int(calls)}:
                if calls >= _SHORT_BLOCK:
                    self._call()
                return {"seconds": [self._call() for _ in range(calls)]}
            case {"do": "peak memory"}:
                return {"mib": peak_memory_mib()}
        raise ValueError(f"not a command: {command}")

    def _warm_up(self) -> list[float]:
        seconds: list[float] = []
        while len(seconds) < _WARM_UP_CALLS or not _is_settled(seconds):
            seconds.append(self._call())
        return seconds

    def _call(self) -> float:
        if self._runtime is None or self._images is None:
            raise ValueError("load a model and prepare a batch before running it")
        start = time.perf_counter()
        ready = self._images if self._preprocessing is None else self._preprocessing.to_input(self._images)
        self._runtime.run(ready)
        return time.perf_counter() - start


def peak_memory_mib() -> float | None:
    """Return the most memory that this process ever held, in MiB; ``None`` on Windows.

    On Linux, ``ru_maxrss`` starts at the size of the process that this one was forked from (it survives
    ``execve``), which after an ``import torch`` there is more than a small model needs here; ``VmHWM`` does
    not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10  # in KiB
    try:
        import resource
    except ImportError:
        return None
    # macOS counts bytes, the other systems KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Answer commands until stdin ends."""
    replies = claim_stdout()
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    worker = Worker()
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:  # each runtime raises its own
            reply = {"error": _sentence(error), "kind": type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def _source(fields: dict[str, Any]) -> Source:
    path, weights = fields.get("path"), fields.get("weights")
    return Source(
        path=path and Path(path),
        network=fields.get("network"),
        weights=weights and Path(weights),
        num_classes=fields.get("num_classes"),
    )


def _random_images(shape: list[int], dtype: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape, np.float32)


def _is_settled(seconds: list[float]) -> bool:
    last = seconds[-3:]
    bounded = len(seconds) >= _WARM_UP_MAX_CALLS or sum(seconds) >= _WARM_UP_MAX_SECONDS
    return bounded or max(last) <= _SETTLED * min(last)


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _end_with_parent() -> None:
    """Ask Linux to kill this process with its parent: it may be stopped then and not see stdin end."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main()
