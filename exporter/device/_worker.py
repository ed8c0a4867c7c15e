"""The process that imports NumPy and the runtime: ``_worker``, one JSON object from stdin, its answers to stdout.

Everything it loads, it loads from bytes whose hash it has just checked against the manifest's.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from ._files import open_plain

if TYPE_CHECKING:
    import numpy as np

    from ._backends import Backend

__all__ = ["main"]

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_ADDRESS_SPACE, _OF_A_THREAD = 4096, 256  # MiB besides what is allocated: libraries, and threads' stacks and arenas
_LARGEST_FILE = 4 << 30
_WARM_UP, _LEAST, _MOST, _SECONDS = 3, 11, 200, 1.0  # runs, and how long they go on
_TOP = 5
_ROUNDED = 1e-2  # how far from 1 a sum of probabilities may be: float16's and 8 bits' roundings


def main() -> int:
    """Answer the question on stdin, one JSON object a line."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native libraries print to stdout as they like
    question = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    _bound(question["limits"], question["answers"])
    try:
        for answer in _answers(question):
            replies.write(json.dumps(answer, allow_nan=False) + "\n")
            replies.flush()
    except Exception as error:  # the runtimes raise their own
        replies.write(json.dumps({"error": _reason(error, question)}) + "\n")
    replies.close()
    return 0


def _answers(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if question["task"] == "classify":
        yield from _classify(question)
        return
    tasks = {"version": _version, "probe": _probe, "build": _build, "check": _check}
    yield tasks[question["task"]](question)


def _reason(error: Exception, question: dict[str, Any]) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more memory than {question['limits']['memory_mib']} MiB"
    return " ".join(str(error).split())[:600] or type(error).__name__


def _bound(limits: dict[str, Any], answers: int) -> None:
    """Bound this process before anything is loaded, and have it end with the agent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    cores = os.cpu_count() or 1
    seconds = math.ceil(limits["seconds"] * cores * answers) + 1
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: _LARGEST_FILE}
    if limits["data_limit"]:
        bounds[resource.RLIMIT_DATA] = limits["memory_mib"] << 20
        bounds[resource.RLIMIT_AS] = (limits["memory_mib"] + _ADDRESS_SPACE + _OF_A_THREAD * cores) << 20
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            bound = min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def _version(question: dict[str, Any]) -> dict[str, Any]:
    from ._backends import module

    return {"version": str(module(question["runtime"]).__version__)}


def _probe(question: dict[str, Any]) -> dict[str, Any]:
    from ._cuda import Cuda

    return {**_version(question), "capability": Cuda().capability}


def _build(question: dict[str, Any]) -> dict[str, Any]:
    from ._backends import build_engine

    golden = _array(question["golden"]["input"])
    engine = build_engine(question["runtime"], _verified(question["model"]), golden.shape, question["capability"])
    with Path(question["output"]).open("wb") as file:
        file.write(engine)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashlib.sha256(engine).hexdigest()}


def _check(question: dict[str, Any]) -> dict[str, Any]:
    """Compare with the golden outputs, and time the median run."""
    golden = question["golden"]
    inputs, reference = _array(golden["input"]), _array(golden["logits"])
    others = {name: _array(file) for name, file in golden["others"].items()}
    backend = _open(question)
    outputs = backend.outputs(inputs)
    unnamed = [name for name in outputs if name not in others]
    if len(unnamed) != 1 or len(outputs) != 1 + len(others):
        raise ValueError(f"its outputs are {', '.join(outputs)}, and not those of the manifest")
    logits = outputs[unnamed[0]]
    words = {name: f"values of {name}" for name in outputs} if others else {unnamed[0]: "logits"}
    ratios = {word: _sqnr(word, others.get(name, reference), outputs[name]) for name, word in words.items()}
    worst = min(ratios, key=lambda word: ratios[word])
    rows = (len(reference), -1)
    same = (logits.reshape(rows).argmax(axis=1) == reference.reshape(rows).argmax(axis=1)).all()
    return {
        "sqnr_db": None if ratios[worst] == math.inf else ratios[worst],  # JSON has no infinity
        "output": worst,
        "same_top1": bool(same),
        "latency_ms": None if question["quick"] else _median_ms(backend, inputs, question["limits"]["seconds"]),
        "version": backend.version,
    }


def _sqnr(word: str, reference: np.ndarray, actual: np.ndarray) -> float:
    """Return 10·log10(Σ r² / Σ (r − f)²) of an output that errors call ``word``, infinity where both are equal."""
    import numpy as np

    if actual.shape != reference.shape:
        raise ValueError(f"its {word} have the shape {actual.shape}, and the golden ones {reference.shape}")
    if not np.isfinite(actual).all():
        raise ValueError(f"its {word} are not finite")
    exact = reference.astype(np.float64)
    noise = float(((exact - actual.astype(np.float64)) ** 2).sum())
    signal_power = float((exact**2).sum())
    if noise == 0.0:
        return math.inf
    if signal_power == 0.0:
        return -999.0  # JSON has no infinity
    return 10 * math.log10(signal_power / noise)


def _median_ms(backend: Backend, inputs: np.ndarray, seconds: float) -> float:
    for _ in range(_WARM_UP):
        backend.run(inputs)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < _MOST:
        start = time.perf_counter()
        backend.run(inputs)
        end = time.perf_counter()
        times.append(end - start)
        settled = len(times) >= _LEAST and end - begin >= _SECONDS
        if settled or (len(times) >= 3 and end - begin >= seconds / 4):  # a slow device gets fewer runs, not a timeout
            break
    return sorted(times)[len(times) // 2] * 1e3


def _classify(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield once that the model is loaded, and then the likeliest classes of each picture, or why it has none."""
    from ._pictures import PictureError, model_input

    names = question["classes"] and json.loads(_verified(question["classes"]).decode("utf-8"))
    golden = _array(question["golden"]["input"])
    head = question["head"]
    if head is None:  # of a bundle that was made before manifests said it
        head = "softmax" if _are_probabilities(_array(question["golden"]["logits"])) else "logits"
    backend = _open(question)
    yield {"version": backend.version}

    def answer(image: str) -> dict[str, Any]:
        try:
            inputs = model_input(Path(image), question["preprocessing"], golden)
            return {"top": _likeliest(_probabilities(backend, inputs, head), names), "why_not": None}
        except PictureError as error:
            return {"top": [], "why_not": str(error)}
        except Exception as error:  # the runtimes and Pillow's plugins raise their own
            return {"top": [], "why_not": f"can't be classified ({_reason(error, question)})"}

    yield from map(answer, question["images"])


def _probabilities(backend: Backend, inputs: np.ndarray, head: str) -> np.ndarray:
    """Return the probabilities of the classes, float64, for the first of the images that are given.

    The softmax of logits is taken, and that of their logarithms alike; probabilities are what they are.
    """
    import numpy as np

    batch = backend.batch or 1
    if len(inputs) < batch:  # the model insists on more at a time
        inputs = np.concatenate([inputs, np.repeat(inputs[-1:], batch - len(inputs), axis=0)])
    scores: np.ndarray = backend.run(inputs)[0].astype(np.float64).reshape(-1)
    if not np.isfinite(scores).all():
        raise ValueError("its scores are not finite")
    if head == "softmax":
        return scores
    powers = np.exp(scores - scores.max())
    likely: np.ndarray = powers / powers.sum()
    return likely


def _are_probabilities(scores: np.ndarray) -> bool:
    sums = scores.reshape(len(scores), -1).sum(axis=1)
    return bool((scores >= 0).all() and (abs(sums - 1) < _ROUNDED).all())


def _likeliest(likely: np.ndarray, names: Any) -> list[dict[str, Any]]:
    import numpy as np

    return [
        {
            "class": int(index),
            "name": names[index] if isinstance(names, list) and index < len(names) else None,
            "probability": float(likely[index]),
        }
        for index in np.argsort(-likely, kind="stable")[:_TOP]
    ]


def _open(question: dict[str, Any]) -> Backend:
    from ._backends import OnnxRuntime, TensorRt

    if question["runtime"] == "onnxruntime":
        return OnnxRuntime(_verified(question["model"]))
    return TensorRt(question["runtime"], _verified(question["engine"]))


def _array(file: list[str]) -> np.ndarray:
    import numpy as np

    array: np.ndarray = np.load(io.BytesIO(_verified(file)), allow_pickle=False)
    if array.ndim < 1 or not len(array):
        raise ValueError(f"{Path(file[0]).name} holds nothing")
    return array


def _verified(file: list[str]) -> bytes:
    """Return the bytes of a file, given its path and SHA-256."""
    path, sha256 = file
    with os.fdopen(open_plain(Path(path)), "rb") as opened:
        data = opened.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{Path(path).name} is not what the manifest says: its SHA-256 is another")
    return data
