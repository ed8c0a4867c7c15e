"""Whether ``quantize`` went wrong on a network without saying so.

The judge shares nothing with what it judges. The file as it came runs node by node, unfused, on pictures that nothing
was calibrated on, and the INT8 file as its runtime runs it. Of the reference's output r and the INT8 file's y

    SQNR   10 log₁₀ (Σ (r − r̄)² / Σ (r − y)²)

with r̄ the mean over pictures, so that an output that hardly depends on the picture proves nothing. What can be asked of
8 bits is what the plainest way gives: every weight rounded per channel, and every tensor that layers and sums read
rounded to 256 steps of its range on the pictures for calibration, by nodes of float arithmetic in the very file.
"""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.studies._random_networks import run
from rexport._cpu import this_cpu
from rexport._errors import RexportError, VerificationError
from rexport.calibration.workers import choose_workers
from rexport.choices import Recovery
from rexport.evaluation import proof
from rexport.jobs.quantize import QuantizeRequest
from rexport.jobs.quantize import run as run_quantize
from rexport.quantization import target_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.studies._random_networks import RandomNetwork

    _Batches = Sequence[Mapping[str, np.ndarray]]

__all__ = [
    "FAULTS",
    "RECOVERIES",
    "TARGETS",
    "Judge",
    "Judgement",
    "Verdict",
    "centred_sqnr_db",
    "judge_output",
    "plainly_quantized",
    "quantized",
]

TARGETS = ("x86", "arm", "openvino", "tensorrt")
RECOVERIES = ("none", "equalize", "adaround")
_PICTURES = 16
_CALIBRATION, _FRESH = 0, 1  # draws

# A layer rounded to 8 bits loses some 35 to 45 dB, a network of a dozen of them 20 to 35. A wrong weight, scale or
# channel leaves less than 10 in all but the mildest cases.
_SANE_DB, _BROKEN_DB = 20.0, 10.0
# Integers computed at once instead of float numbers that stand for them round some sums the other way: 40 dB and more
# where the file itself loses 25 to 30.
_SAME_DB, _GOOD_DB = 20.0, 25.0

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_JOINING = ("Add", "Concat")


class Verdict(StrEnum):
    """What came of a network, from the best to the worst."""

    GOOD = "good"
    UNPROVEN = "unproven"  # eight bits are too few for it, by the plainest way too
    SAID = "weak, and said so"
    REFUSED = "refused"
    UNUSABLE = "not usable, and not written"
    BROKEN = "broken"
    RUNS_OTHERWISE = "runs otherwise"
    CRASHED = "crashed"


FAULTS = (Verdict.BROKEN, Verdict.RUNS_OTHERWISE, Verdict.CRASHED)  # a refusal is one if its reason does not hold


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict on a network for a target.

    Attributes:
        seed: The network's.
        target: What the file is for.
        recovery: What was done to lose less.
        verdict: What came of it.
        output: The index of the worst output.
        sqnr_db: Its SQNR as the runtime of the target runs it; ``None`` without a file.
        nodes_db: The same, run node by node.
        plain_db: What the plainest way gives.
        why: The refusal, or the end of the traceback.
    """

    seed: int
    target: str
    recovery: str
    verdict: Verdict
    output: int = 0
    sqnr_db: float | None = None
    nodes_db: float | None = None
    plain_db: float | None = None
    why: str = ""


def quantized(model: Path, data: Path, target: str, recovery: str) -> tuple[bytes, proof.Verdict]:
    """Return the INT8 file of a model as ``rexport quantize`` makes it, and what its own proof says of it.

    Raises:
        RexportError: It refuses.
    """
    request = QuantizeRequest(
        model=model,
        output=model.with_name("int8.onnx"),
        target=target_for(target, this_cpu()),
        data=data,
        recovery=Recovery(recovery),
        workers=choose_workers(threads=1),
        threads=1,
    )
    result = run_quantize(request)
    assert result.proof is not None
    return request.output.read_bytes(), result.proof.verdict


class Judge:
    """A network, its outputs, and what the plainest 8 bits make of them."""

    def __init__(self, network: RandomNetwork) -> None:
        self._network = network
        self._calibration = network.pictures(_PICTURES, draw=_CALIBRATION)
        self._inputs = network.inputs(network.pictures(_PICTURES, draw=_FRESH))
        self._batch = network.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or _PICTURES
        self._expected = self._nodes(network.proto)
        plain = plainly_quantized(network.proto, self._batches(network.inputs(self._calibration)))
        self._plain_db = self._sqnr(self._nodes(plain))

    def judge(self, target: str, recovery: str) -> Judgement:
        """Quantize the network and judge what came of it."""
        failed = partial(Judgement, seed=self._network.seed, target=target, recovery=recovery)
        with tempfile.TemporaryDirectory() as folder:
            try:
                file, own_verdict = self.quantize(Path(folder), target, recovery)
            except RexportError as error:
                reason = f"{type(error).__name__}: {str(error).replace(folder, 'FOLDER')}"
                plain_db = min(self._plain_db)
                if isinstance(error, VerificationError):
                    return failed(verdict=Verdict.UNUSABLE, why=reason, plain_db=plain_db)
                return failed(verdict=Verdict.REFUSED, why=reason, plain_db=plain_db)
            except Exception:  # what a user would see as a traceback
                return failed(verdict=Verdict.CRASHED, why=_last_lines())
        judgement = self.judge_file(file, target, recovery)
        if judgement.verdict in (Verdict.BROKEN, Verdict.RUNS_OTHERWISE) and own_verdict is proof.Verdict.WEAK:
            return replace(judgement, verdict=Verdict.SAID)
        return judgement

    def quantize(self, folder: Path, target: str, recovery: str) -> tuple[bytes, proof.Verdict]:
        """Return the network's INT8 file, and what it says of itself; what that takes is left in a folder."""
        model, data = folder / "model.onnx", folder / "data.npy"
        model.write_bytes(self._network.proto.SerializeToString())
        np.save(data, self._network.data(self._calibration))
        return quantized(model, data, target, recovery)

    def judge_file(self, file: bytes, target: str, recovery: str) -> Judgement:
        """Judge an INT8 file."""
        judged = partial(Judgement, seed=self._network.seed, target=target, recovery=recovery)
        try:
            nodes_db = self._sqnr(self._nodes(onnx.load_from_string(file)))
            sqnr_db = self._sqnr(self._outputs(lambda batches: _run_on(target, file, batches)))
        except Exception:  # of a runtime that does not take the file
            return judged(verdict=Verdict.CRASHED, why=_last_lines())
        outputs = list(zip(sqnr_db, nodes_db, self._plain_db, strict=True))
        verdicts = [judge_output(*figures) for figures in outputs]
        worst = max(range(len(outputs)), key=lambda index: (list(Verdict).index(verdicts[index]), -sqnr_db[index]))
        return judged(
            verdict=verdicts[worst],
            output=worst,
            sqnr_db=sqnr_db[worst],
            nodes_db=nodes_db[worst],
            plain_db=self._plain_db[worst],
        )

    def _batches(self, inputs: np.ndarray) -> list[dict[str, np.ndarray]]:
        name = self._network.proto.graph.input[0].name
        return [{name: inputs[start : start + self._batch]} for start in range(0, len(inputs), self._batch)]

    def _nodes(self, proto: onnx.ModelProto) -> list[np.ndarray]:
        return self._outputs(lambda batches: [run(proto, feeds) for feeds in batches])

    def _outputs(
        self, run_batches: Callable[[Sequence[Mapping[str, np.ndarray]]], list[list[np.ndarray]]]
    ) -> list[np.ndarray]:
        return [np.concatenate(parts) for parts in zip(*run_batches(self._batches(self._inputs)), strict=True)]

    def _sqnr(self, outputs: Sequence[np.ndarray]) -> list[float]:
        return [centred_sqnr_db(*pair) for pair in zip(self._expected, outputs, strict=True)]


def judge_output(sqnr_db: float, nodes_db: float, plain_db: float) -> Verdict:
    """Return the verdict on an output: its SQNR as it runs, node by node, and by the plainest way."""
    if sqnr_db < _BROKEN_DB and plain_db >= _SANE_DB:
        return Verdict.BROKEN
    if sqnr_db < _SAME_DB and nodes_db >= _GOOD_DB:
        return Verdict.RUNS_OTHERWISE
    if sqnr_db >= _BROKEN_DB:
        return Verdict.GOOD
    return Verdict.UNPROVEN


def centred_sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the SQNR (see above), for arrays of shape ``(N, ...)``; minus infinity where numbers are not finite."""
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    if expected.shape != actual.shape or not np.isfinite(actual).all():
        return -np.inf
    signal, noise = np.square(expected - expected.mean(axis=0)).sum(), np.square(expected - actual).sum()
    if not noise:
        return np.inf
    if not signal:
        return -np.inf
    return float(10 * np.log10(signal / noise))


def _run_on(target: str, file: bytes, batches: _Batches) -> list[list[np.ndarray]]:
    """Run a file as the runtime of its target does; TensorRT's, which needs a GPU, node by node."""
    if target == "tensorrt":
        return [run(onnx.load_from_string(file), feeds) for feeds in batches]
    if target == "openvino":
        return list(_run_on_openvino(file, batches))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if target == "arm":
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(feeds)) for feeds in batches]


def _run_on_openvino(file: bytes, batches: _Batches) -> Iterator[list[np.ndarray]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    (images,) = batches[0].values()
    model.reshape({model.input(0): list(images.shape)})
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", options)
    for feeds in batches:
        results = compiled(list(feeds.values()))
        yield [np.array(results[output]) for output in compiled.outputs]


def plainly_quantized(proto: onnx.ModelProto, batches: _Batches) -> onnx.ModelProto:
    """Return a model whose weights and whose layers' inputs are rounded to 8 bits, with nodes of float arithmetic.

    Args:
        proto: The float model.
        batches: What its first input takes, for the ranges.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    graph = plain.graph
    pictured, to_round = _tensors_to_round(graph)
    values = _values(plain, list(to_round), batches)
    nodes: list[onnx.NodeProto] = []
    rounded: dict[tuple[str, int], str] = {}
    for number, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            is_weight = node.op_type in _WEIGHTED and index == 1 and name not in pictured
            if not (is_weight or (name in pictured and name in to_round and index < 2)):
                continue
            axis = _output_axis(node) if is_weight else -1
            key = (name, axis)
            if key not in rounded:
                rounded[key] = f"plain:{name}:{axis}:{number}"
                if is_weight:
                    array = _rounded_weight(values[name], axis)
                    graph.initializer.append(numpy_helper.from_array(array, rounded[key]))
                else:
                    nodes += _rounding(graph, name, rounded[key], values[name])
            copy.input[index] = rounded[key]
        nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)
    return plain


def _tensors_to_round(graph: onnx.GraphProto) -> tuple[set[str], dict[str, None]]:
    """Return the tensors that depend on the pictures, and those that layers and sums read."""
    pictured = {graph.input[0].name}
    to_round: dict[str, None] = {}
    for node in graph.node:
        if pictured & set(node.input):
            pictured |= set(node.output)
        if node.op_type in _WEIGHTED:
            to_round |= dict.fromkeys(node.input[:2])
        elif node.op_type in _JOINING and all(name in pictured for name in node.input):
            to_round |= dict.fromkeys(node.input)
    return pictured, to_round


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a node's weight that its outputs' channels are along."""
    if node.op_type == "Conv" or any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        return 0
    return 1


def _values(proto: onnx.ModelProto, names: Sequence[str], batches: _Batches) -> dict[str, np.ndarray]:
    """Return what tensors are on all batches, one after another; of weights, what they are on the first."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    fed = {name: np.concatenate([feeds[name] for feeds in batches]) for name in batches[0]}
    computed = [name for name in names if name not in stored and name not in fed]
    if not computed:
        return stored | fed
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed)
    results = [run(watched, feeds) for feeds in batches]
    dependent = {}
    for name, first, *others in zip(computed, *results, strict=True):
        dependent[name] = first  # a computed weight is the same on each batch
        if not all(np.array_equal(first, part) for part in others):
            dependent[name] = np.concatenate([first, *others])
    return stored | fed | dependent


def _rounded_weight(weight: np.ndarray, axis: int) -> np.ndarray:
    axes = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / 127, 1e-30)
    return np.asarray(np.rint(weight / scale) * scale, np.float32)


def _rounding(graph: onnx.GraphProto, name: str, output: str, values: np.ndarray) -> Iterator[onnx.NodeProto]:
    """Yield nodes that round a tensor to 256 steps of its range, in operators that every opset has."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step = max((high - low) / 255, 1e-30)
    first = np.rint(low / step)
    numbers = {"step": step, "half": 0.5, "low": first, "high": first + 255}
    for key, number in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.float32), f"{output}:{key}"))

    steps = [("Div", "step"), ("Add", "half"), ("Floor",), ("Max", "low"), ("Min", "high"), ("Mul", "step")]
    tensors = [name, *(f"{output}:{index}" for index in range(1, len(steps))), output]
    for (op_type, *keys), (read, written) in zip(steps, pairwise(tensors), strict=True):
        yield helper.make_node(op_type, [read, *(f"{output}:{key}" for key in keys)], [written])


def _last_lines() -> str:
    return "\n".join(traceback.format_exc().strip().splitlines()[-5:])
