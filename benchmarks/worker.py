"""The process of one model on one runtime: ``python -m rexport.benchmarks.worker``.

It reads one JSON object a line from stdin and answers each with one on stdout:

    {"do": "import", "runtime": "cpu"}                                  {}
    {"do": "load", "runtime": "cpu", "path": "m.onnx", "threads": 2}    {"seconds": 0.21, "affinity": [0, 1]}
    {"do": "prepare", "shape": [8, 3, 224, 224], "dtype": "float32", "seed": 0, "preprocessing": null,
     "on_device": false, "tensors": []}                                 {}
    {"do": "warm up"}                                 {"first": 0.3, "seconds": [...], "peak_memory_mib": 180.2}
    {"do": "run", "calls": 5}                         {"seconds": [...], "clock_mhz": 2600.0, "phases": null}
    {"do": "outputs", "pictures": "p.npy", "preprocessing": "{...}", "batch": 8, "to": "o.npy"}         {}
    {"do": "peak memory"}                                               {"mib": 180.2}

Models that take no pictures are given random ``tensors``, each with its name, dtype and shape. Instead of ``path``, a
network of the zoo comes as ``network``, ``weights`` and ``num_classes``. With a ``preprocessing``, as metadata
states it, images are pixels and every call begins with it. Whatever goes wrong comes back as ``{"error": "a sentence",
"kind": "UnavailableError"}``. What libraries print goes to stderr.

Loading is timed without importing the runtime's packages. A runtime that can tell its phases apart (``run_phases``) is
run so, and the medians of a block come back as ``{"upload": ..., "compute": ..., "download": ...}``, in seconds.
"""

from __future__ import annotations

import contextlib
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._child import answer_requests
from rexport._errors import UnavailableError
from rexport.benchmarks.affinity import usable_cores
from rexport.benchmarks.inputs import model_input, random_feed, random_images, read_preprocessing, read_source
from rexport.benchmarks.noise import clock_mhz
from rexport.benchmarks.warm_up import warm_up
from rexport.feeds import examples_in, in_batches, one_array
from rexport.runtimes import RUNTIMES, open_runtime

if TYPE_CHECKING:
    from rexport.feeds import Feed
    from rexport.preprocessing import Preprocessing

__all__ = ["Worker", "peak_memory_mib"]

_SHORT_BLOCK = 4  # from so many calls on, one more to warm the caches up again costs little
_PHASES = ("upload", "compute", "download")


class Worker:
    """One loaded model and its input batch."""

    def __init__(self) -> None:
        self._runtime: Any = None  # a Runtime, and some are more: see ``run_phases`` and ``keep``
        self._images: Feed | None = None
        self._preprocessing: Preprocessing | None = None
        self._on_device = False
        self._phases: list[Any] = []

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what one command says and return the reply."""
        match command:
            case {"do": "import", "runtime": str(runtime)}:
                _import(runtime)
                return {}
            case {"do": "load", "runtime": str(runtime), "threads": threads, **options}:
                _import(runtime)
                start = time.perf_counter()
                self._runtime = open_runtime(runtime, read_source(options), threads=threads, expendable=True)
                return {"seconds": time.perf_counter() - start, "affinity": usable_cores() or None}
            case {"do": "prepare", "shape": shape, "dtype": str(dtype), "seed": seed, **options}:
                tensors = options.get("tensors")
                self._images = random_feed(tensors, seed) if tensors else random_images(shape, dtype, seed)
                self._preprocessing = read_preprocessing(options["preprocessing"])
                self._on_device = bool(options.get("on_device"))
                if self._on_device:
                    self._keep(one_array(self._images))
                return {}
            case {"do": "warm up"}:
                first = self._call()
                return {"first": first, "seconds": warm_up(self._call), "peak_memory_mib": peak_memory_mib()}
            case {"do": "run", "calls": int(calls)}:
                return self._run(calls)
            case {"do": "outputs", "pictures": str(pictures), "preprocessing": text, "batch": int(batch), "to": to}:
                outputs = self._outputs(pictures, read_preprocessing(text), batch)
                np.save(to, outputs, allow_pickle=False)
                return {}
            case {"do": "peak memory"}:
                return {"mib": peak_memory_mib()}
        raise ValueError(f"not a command: {command}")

    def _run(self, calls: int) -> dict[str, Any]:
        if calls >= _SHORT_BLOCK:
            self._call()
        self._phases.clear()
        seconds = [self._call() for _ in range(calls)]
        phases = {name: median(getattr(call, name) for call in self._phases) for name in _PHASES if self._phases}
        return {"seconds": seconds, "clock_mhz": clock_mhz(usable_cores()), "phases": phases or None}

    def _call(self) -> float:
        if self._runtime is None or self._images is None:
            raise ValueError("load a model and prepare a batch before running it")
        start = time.perf_counter()
        if self._on_device:
            self._runtime.run_kept()
            return time.perf_counter() - start
        ready = model_input(self._images, self._preprocessing)
        if hasattr(self._runtime, "run_phases"):
            self._phases.append(self._runtime.run_phases(one_array(ready)))
        else:
            self._runtime.run(ready)
        return time.perf_counter() - start

    def _keep(self, images: np.ndarray) -> None:
        if not hasattr(self._runtime, "keep"):
            raise UnavailableError("This runtime can't keep pictures on a device; measure it without --on-device.")
        self._runtime.keep(images)

    def _outputs(self, file: str, preprocessing: Preprocessing | None, batch: int) -> np.ndarray:
        """Run the pictures, or other examples, of a file in batches of ``batch``; return the first outputs."""
        loaded = np.load(file, mmap_mode="r")
        feed: Feed = loaded if isinstance(loaded, np.ndarray) else dict(loaded)
        outputs, remaining = [], examples_in(feed)
        for part in in_batches(feed, batch):
            result = np.asarray(self._runtime.run(model_input(part, preprocessing)))
            outputs.append(result[:remaining].copy())
            remaining -= examples_in(part)
        return np.concatenate(outputs)


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / {"darwin": 2**20}.get(sys.platform, 2**10)


def _import(runtime: str) -> None:
    """Import what a runtime needs; where that fails, loading says so."""
    with contextlib.suppress(Exception):
        import_module(RUNTIMES[runtime].partition(":")[0])


if __name__ == "__main__":
    answer_requests(Worker().answer)
