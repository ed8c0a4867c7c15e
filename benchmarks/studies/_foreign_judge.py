"""Two ONNX files compared by ONNX Runtime alone, as a command of its own; it needs nothing of rexport.

    python _foreign_judge.py equal|sqnr|speed FIRST.onnx SECOND.onnx EXAMPLES

EXAMPLES is a folder with an .npz for each example. It prints one JSON object:

    equal   the largest difference of any output, as a fraction of its largest value, on noise and the examples; and
            that of the first file from itself run without any optimization, which is rounding alone
    sqnr    10 log₁₀ (Σ r² / Σ (r − y)²) of each output over the examples, in dB
    speed   the time of the first over that of the second, interleaved: the median of the pairs, and both times
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

Feed = dict[str, np.ndarray]
_SECONDS, _WARM_UP = 1.5, 3
_EXACT_DB = 200.0


def _session(path: str, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _examples(folder: str) -> list[Feed]:
    return [dict(np.load(file)) for file in sorted(Path(folder).glob("*.npz"))]


def _noise(session: onnxruntime.InferenceSession, example: Feed) -> Feed:
    """Return noise in the shapes of an example, twice as long where the first axis of each input is open."""
    random = np.random.default_rng(7)
    shapes = {value.name: value.shape for value in session.get_inputs()}
    is_open = all(shape and not isinstance(shape[0], int) for shape in shapes.values())
    noise = {}
    for name, array in example.items():
        shape = (2 * len(array), *array.shape[1:]) if is_open else array.shape
        if array.dtype.kind == "f":
            noise[name] = random.normal(size=shape).astype(array.dtype)
        else:  # tokens and the like have bounds that only the examples know
            noise[name] = random.choice(array.reshape(-1), shape)
    return noise


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if np.shape(expected) != np.shape(actual):
        return float("inf")
    expected, actual = (np.asarray(x).astype(np.float64) for x in (expected, actual))
    if np.array_equal(expected, actual, equal_nan=True):
        return 0.0
    largest = float(np.abs(expected).max(initial=0)) or 1.0
    difference = float(np.abs(expected - actual).max(initial=0)) / largest
    return difference if np.isfinite(difference) else float("inf")


def equal(first: str, second: str, folder: str) -> dict[str, object]:
    """Return the largest difference of any output, and that by which rounding alone changes the first file."""
    one, other, examples = _session(first), _session(second), _examples(folder)
    as_written = _session(first, optimize=False)
    names = [value.name for value in one.get_outputs()]
    if names != [value.name for value in other.get_outputs()]:
        return {"difference": "inf", "rounding": 0.0}
    difference = rounding = 0.0
    for feed in [_noise(one, examples[0]), *examples[:3]]:
        expected = one.run(None, feed)
        difference = max(difference, _largest(expected, other.run(None, feed)))
        rounding = max(rounding, _largest(expected, as_written.run(None, feed)))
    return {"difference": difference if np.isfinite(difference) else "inf", "rounding": rounding}


def _largest(expected: list[Any], actual: list[Any]) -> float:
    """Return the largest difference of outputs, which may be sequences of arrays."""
    flat = [
        [x for output in side for x in (output if isinstance(output, list) else [output])]
        for side in (expected, actual)
    ]
    return max((_difference(a, b) for a, b in zip(*flat, strict=True)), default=0.0)


def sqnr(first: str, second: str, folder: str) -> dict[str, object]:
    """Return the SQNR of each output."""
    one, other, examples = _session(first), _session(second), _examples(folder)
    outputs = [value.name for value in one.get_outputs()]
    signal, noise = np.zeros(len(outputs)), np.zeros(len(outputs))
    for feed in examples:
        for index, (expected, actual) in enumerate(zip(one.run(None, feed), other.run(None, feed), strict=True)):
            exact = np.asarray(expected).astype(np.float64)
            signal[index] += np.square(exact).sum()
            noise[index] += np.square(exact - np.asarray(actual).astype(np.float64)).sum()
    return {
        "sqnr_db": {name: _decibels(s, n) for name, s, n in zip(outputs, signal.tolist(), noise.tolist(), strict=True)}
    }


def _decibels(signal: float, noise: float) -> float | None:
    """Return the ratio in dB: 200 for outputs that are equal, ``None`` if it is not finite."""
    if not np.isfinite(signal + noise):
        return None
    if noise == 0:
        return _EXACT_DB
    return float(10 * np.log10(signal / noise)) if signal else -_EXACT_DB


def speed(first: str, second: str, folder: str) -> dict[str, object]:
    """Return how many times as fast the second is, one example at a time."""
    sessions, feed = [_session(first), _session(second)], _examples(folder)[0]
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(None, feed)
    seconds: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(seconds) < 5:
        pair = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, feed)
            pair.append(time.perf_counter() - start)
        seconds.append(pair)
    return {
        "ratio": median(a / b for a, b in seconds),
        "milliseconds": [1e3 * median(pair[index] for pair in seconds) for index in (0, 1)],
    }


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print(json.dumps({"equal": equal, "sqnr": sqnr, "speed": speed}[command](*arguments)))
