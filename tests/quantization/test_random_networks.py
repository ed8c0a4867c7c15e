"""No residual network, however its exporter wrote it down, becomes a file that is wrong without a word.

A few dozen are tried here. For thousands, on every target with every recovery, say after a change of the quantizer:

    python -m benchmarks.studies.random_networks --seeds 1000
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.studies import random_networks
from benchmarks.studies._random_networks import random_network, run
from benchmarks.studies._silent_faults import (
    FAULTS,
    RECOVERIES,
    TARGETS,
    Judge,
    Judgement,
    Verdict,
    centred_sqnr_db,
    judge_output,
)
from rexport._errors import DataError
from tests._deep import deep

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

_SEEDS = 36
_OPENVINO_SEEDS = range(12, 24)  # compiling its files takes longer than all the rest


def _cases() -> list[Any]:
    """Return seeds, each with a target and a recovery in turn: every pair three times, those of OpenVINO once."""
    pairs = [(target, recovery) for target in TARGETS for recovery in RECOVERIES]
    cases = [(seed, *pairs[seed % len(pairs)]) for seed in range(_SEEDS)]
    sample = [case for case in cases if case[1] != "openvino" or case[0] in _OPENVINO_SEEDS]
    return [*sample, *deep(*(case for case in cases if case not in sample))]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "target", "recovery"), _cases())
def test_a_network_is_quantized_well_or_refused(seed: int, target: str, recovery: str) -> None:
    if target == "openvino":
        pytest.importorskip("openvino", reason="pip install 'rexport[openvino]' to run its files")
    judgement = Judge(random_network(seed)).judge(target, recovery)
    assert judgement.verdict not in FAULTS, judgement


def _dies_on_arm(seed: int, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
    if ("arm", "none") in pairs:
        os.abort()
    return [Judgement(seed=seed, target=target, recovery=how, verdict=Verdict.GOOD) for target, how in pairs]


def test_a_process_that_dies_takes_no_other_judgement_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # for the process to find this module
    monkeypatch.setattr(random_networks, "_judged", _dies_on_arm)
    judgements = random_networks.judge_apart(7, [("x86", "none"), ("arm", "none"), ("tensorrt", "adaround")])
    assert [(it.target, it.verdict) for it in judgements] == [
        ("x86", Verdict.GOOD),
        ("arm", Verdict.CRASHED),
        ("tensorrt", Verdict.GOOD),
    ]


# the generator


@functools.cache
def _some() -> tuple[frozenset[str], ...]:
    return tuple(frozenset(random_network(seed).features) for seed in range(60))


@pytest.mark.parametrize("seed", range(12))
def test_a_network_is_valid_and_its_scores_differ_between_pictures(seed: int) -> None:
    network = random_network(seed)
    onnx.checker.check_model(network.proto, full_check=True)
    name = network.proto.graph.input[0].name
    batch = network.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 8
    inputs = network.inputs(network.pictures(8, draw=1))
    scores = np.concatenate([run(network.proto, {name: inputs[i : i + batch]})[0] for i in range(0, 8, batch)])
    assert scores.shape == (8, 10)
    assert np.isfinite(scores).all()
    # the least of three hundred networks was 2 %
    assert np.square(scores - scores.mean(axis=0)).sum() > 0.01 * np.square(scores).sum()


def test_a_network_follows_from_its_seed() -> None:
    assert random_network(5).proto == random_network(5).proto
    assert random_network(5).proto != random_network(6).proto
    pictures = random_network(5).pictures(2, draw=0)
    assert np.array_equal(pictures, random_network(5).pictures(2, draw=0))
    assert not np.array_equal(pictures, random_network(5).pictures(2, draw=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "feature",
    [
        "opset 9", "opset 23", "depthwise", "pre-activation", "shared weight", "transposed weight",
        "weight normalisation", "dead channels", "channels of other scale", "asymmetric pads", "auto_pad", "Split",
        "Concat", "Pad before a convolution", "MaxPool ceil_mode", "squeeze and excitation", "ConvTranspose", "MatMul",
        "computed parameters of a BatchNormalization", "initializers as inputs", "several outputs", "same names",
        "crossed names", "derived names", "unnamed names",
    ],
)  # fmt: skip
def test_among_sixty_networks_is_one_with(feature: str) -> None:
    assert any(feature in features for features in _some())


# the judge

_GOOD_SEEDS = (0, 5, 6, 14)


@functools.cache
def _good(seed: int) -> tuple[Judge, bytes]:
    """Return a judge and a file that it finds good."""
    judge = Judge(random_network(seed))
    with tempfile.TemporaryDirectory() as folder:
        file, _ = judge.quantize(Path(folder), "x86", "none")
    assert judge.judge_file(file, "x86", "none").verdict is Verdict.GOOD
    return judge, file


def wrong_weight(proto: onnx.ModelProto) -> None:
    """Let a layer compute with the integers of another order."""
    _change(proto, ".weight_quantized", lambda weight: weight.reshape(-1)[::-1].reshape(weight.shape))


def wrong_scale(proto: onnx.ModelProto) -> None:
    """Let a layer's weights be four times what they were."""
    _change(proto, ".weight_scale", lambda scale: 4 * scale)


def swapped_channels(proto: onnx.ModelProto) -> None:
    """Let every output channel have the weights of its neighbour."""
    _change(proto, ".weight_quantized", lambda weight: np.roll(weight, 1, axis=0))


def narrow_range(proto: onnx.ModelProto) -> None:
    """Let a tensor have room for a tenth of its range."""
    names = {node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    _change(proto, "_scale", lambda scale: scale / 10, among=names)


def _change(
    proto: onnx.ModelProto,
    suffix: str,
    change: Callable[[np.ndarray], np.ndarray],
    *,
    among: Container[str] | None = None,
) -> None:
    """Change the middle one of the constants whose names end so."""
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name.endswith(suffix)]
    tensors = [tensor for tensor in tensors if among is None or tensor.name in among]
    tensor = tensors[len(tensors) // 2]
    tensor.CopyFrom(numpy_helper.from_array(np.array(change(numpy_helper.to_array(tensor))), tensor.name))


@pytest.mark.parametrize("seed", _GOOD_SEEDS)
@pytest.mark.parametrize("fault", [wrong_weight, wrong_scale, swapped_channels, narrow_range])
def test_a_planted_fault_is_seen(seed: int, fault: Callable[[onnx.ModelProto], None]) -> None:
    """One layer alone goes wrong, and of its network's 25 dB and more are less than 10 left."""
    judge, file = _good(seed)
    proto = onnx.load_from_string(file)
    fault(proto)
    assert judge.judge_file(proto.SerializeToString(), "x86", "none").verdict is Verdict.BROKEN


def test_a_crash_and_a_refusal_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, _ = _good(_GOOD_SEEDS[0])

    def crash(*_: object) -> bytes:
        raise KeyError("t7")

    monkeypatch.setattr(judge, "quantize", crash)
    crashed = judge.judge("x86", "none")
    assert (crashed.verdict, "KeyError: 't7'" in crashed.why) == (Verdict.CRASHED, True)

    def refuse(*_: object) -> bytes:
        raise DataError("There is nothing in FILE.")

    monkeypatch.setattr(judge, "quantize", refuse)
    refused = judge.judge("x86", "none")
    assert (refused.verdict, refused.why) == (Verdict.REFUSED, "DataError: There is nothing in FILE.")
    assert judge.judge_file(b"no model", "x86", "none").verdict is Verdict.CRASHED


@pytest.mark.parametrize(
    ("sqnr_db", "nodes_db", "plain_db", "verdict"),
    [
        (30.0, 30.0, 30.0, Verdict.GOOD),
        (9.0, 9.0, 21.0, Verdict.BROKEN),
        (9.0, 9.0, 15.0, Verdict.UNPROVEN),
        (15.0, 26.0, 15.0, Verdict.RUNS_OTHERWISE),
        (-math.inf, 30.0, 30.0, Verdict.BROKEN),
    ],
)
def test_verdicts(sqnr_db: float, nodes_db: float, plain_db: float, verdict: Verdict) -> None:
    assert judge_output(sqnr_db, nodes_db, plain_db) is verdict


def test_a_constant_output_proves_nothing() -> None:
    scores = np.tile(np.arange(10.0), (4, 1))
    assert centred_sqnr_db(scores, scores + 1e-6) == -math.inf
    varied = scores + np.arange(4.0).reshape(-1, 1)
    # the differences have a variance of 5/4, the error a square of 1/100
    assert centred_sqnr_db(varied, varied + 0.1) == pytest.approx(10 * math.log10(125))
    assert centred_sqnr_db(varied, varied * np.nan) == -math.inf
