"""A system under test in a process of its own: ``python -m rexport.benchmarks.scenarios.worker``.

It reads one JSON object a line from stdin and answers each with one on stdout:

    {"do": "load", "runtime": "cpu", "path": "m.onnx", "threads": 2}                    {}
    {"do": "prepare", "shape": [8, 3, 224, 224], "dtype": "float32", "preprocessing": null, "seed": 0}  {}
    {"do": "warm up", "sizes": [1, 2, 8]}                                {"seconds": {"1": 0.01, …}}
    {"do": "single-stream", "min_seconds": 3, "min_queries": 64}         {"seconds": […]}
    {"do": "offline", "min_seconds": 3}                                  {"seconds": […], "elapsed": 3.1}
    {"do": "server", "rate": 90, "queries": 900, "seed": 1, "bound": 0.02, "allowed": 9}
                                              {"latencies": […], "batches": 410, "seconds": 10.1, "stopped": false}
    {"do": "loadgen", …}: see ``loadgen_sut``

Instead of ``path``, a network of the zoo comes as ``network``, ``weights`` and ``num_classes``. Whatever goes wrong
comes back as ``{"error": "a sentence", "kind": "UnavailableError"}``. What libraries print goes to stderr. When stdin
ends, so does the process, in the middle of a run as well.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._child import answer_requests
from rexport.benchmarks.inputs import model_input, random_images, read_preprocessing, read_source
from rexport.benchmarks.scenarios.arrivals import poisson_arrivals
from rexport.benchmarks.scenarios.serving import Limit, MonotonicClock, serve
from rexport.runtimes import open_runtime

if TYPE_CHECKING:
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes import Runtime

__all__ = ["SystemUnderTest", "Worker"]

_LIBRARY_BYTES = 64 * 2**20  # so much more than any cache holds, and
_LIBRARY_IMAGES = 256  # at most so many
_WARM_UP_CALLS = 3  # per batch size, at least
_WARM_UP_SECONDS = 1.0  # per batch size, at most
_SETTLED = 1.1  # the slowest of the last three calls over the fastest


class SystemUnderTest:
    """A model on a runtime, and a library of images that queries take in turn."""

    def __init__(self, runtime: Runtime, library: np.ndarray, preprocessing: Preprocessing | None, batch: int) -> None:
        self._runtime = runtime
        self._library = library
        self._preprocessing = preprocessing
        self._input = np.empty((batch, *library.shape[1:]), library.dtype)
        self.batch = batch

    def run(self, first: int, count: int) -> np.ndarray:
        """Answer queries ``first`` to ``first + count``: gather their images, and run them."""
        return self.run_images(np.arange(first, first + count))

    def run_images(self, indices: np.ndarray) -> np.ndarray:
        """Run the images of these indices, which go round the library."""
        images = self._input[: len(indices)]
        np.take(self._library, indices, axis=0, out=images, mode="wrap")
        return self._runtime.run(model_input(images, self._preprocessing))

    def time(self, first: int, count: int) -> float:
        """Return the seconds that these queries take together."""
        start = time.perf_counter()
        self.run(first, count)
        return time.perf_counter() - start


class Worker:
    """Answers commands."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._sut: SystemUnderTest | None = None

    @property
    def sut(self) -> SystemUnderTest:
        """The model with its images."""
        if self._sut is None:
            raise ValueError("load a model and prepare its images before running it")
        return self._sut

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what one command says and return the reply."""
        match command:
            case {"do": "load", "runtime": str(runtime), "threads": threads, **model}:
                self._runtime = open_runtime(runtime, read_source(model), threads=threads, expendable=True)
                return {}
            case {"do": "prepare", "shape": [batch, *image], "dtype": dtype, "preprocessing": text, "seed": int(seed)}:
                if self._runtime is None:
                    raise ValueError("load a model before its images")
                library = _library(batch, image, dtype, seed)
                self._sut = SystemUnderTest(self._runtime, library, read_preprocessing(text), batch)
                return {}
            case {"do": "warm up", "sizes": list(sizes)}:
                return {"seconds": {str(size): self._warm_up(size) for size in sizes}}
            case {"do": "single-stream", "min_seconds": min_seconds, "min_queries": int(fewest)}:
                return self._calls(1, min_seconds, fewest)
            case {"do": "offline", "min_seconds": min_seconds}:
                return self._calls(self.sut.batch, min_seconds, 1)
            case {"do": "server", "rate": rate, "queries": int(queries), "seed": int(seed), "bound": bound, **options}:
                arrivals = poisson_arrivals(rate, queries, seed=seed)
                limit = Limit(seconds=bound, allowed=options["allowed"])
                served = serve(arrivals, self.sut.run, batch=self.sut.batch, clock=MonotonicClock(), limit=limit)
                return {**asdict(served), "latencies": served.latencies.round(7).tolist()}
            case {"do": "loadgen", **settings}:
                from rexport.benchmarks.scenarios.loadgen_sut import run_under_loadgen

                return run_under_loadgen(self.sut, **settings)
        raise ValueError(f"not a command: {command}")

    def _warm_up(self, size: int) -> float:
        """Call with ``size`` images until times settle; return the median of the last three calls' seconds."""
        seconds: list[float] = []
        while len(seconds) < _WARM_UP_CALLS or (
            max(seconds[-3:]) > _SETTLED * min(seconds[-3:]) and sum(seconds) < _WARM_UP_SECONDS
        ):
            seconds.append(self.sut.time(len(seconds) * size, size))
        return median(seconds[-3:])

    def _calls(self, count: int, min_seconds: float, fewest: int) -> dict[str, Any]:
        seconds: list[float] = []
        start = time.perf_counter()
        while len(seconds) < fewest or time.perf_counter() - start < min_seconds:
            seconds.append(self.sut.time(len(seconds) * count, count))
        return {"seconds": seconds, "elapsed": time.perf_counter() - start}


def _library(batch: int, image: list[int], dtype: str, seed: int) -> np.ndarray:
    """Return at least ``batch`` images of a shape, and more than the processor's caches hold."""
    bytes_each = int(np.prod(image)) * np.dtype(dtype).itemsize
    count = max(batch, min(_LIBRARY_IMAGES, -(-_LIBRARY_BYTES // bytes_each)))
    return random_images((count, *image), dtype, seed)


if __name__ == "__main__":
    answer_requests(Worker().answer)
