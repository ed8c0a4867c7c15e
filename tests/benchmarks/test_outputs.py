"""The verdict on outputs, with planted faults."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from rexport import model_file
from rexport.benchmarks.outputs import Comparison, Identity, Precision, compare_outputs, precision_of, top1

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeModel

FLOAT, HALF, INT8 = (Identity(precision=precision) for precision in Precision)
RANDOM = np.random.default_rng(0)
TRAINED = RANDOM.normal(0, 3, (64, 10))
# logits of a network with random weights: a vector of its own for all pictures, and little that differs between them
UNTRAINED = RANDOM.normal(0, 1, (1, 10)) + RANDOM.normal(0, 0.02, (64, 10))


def compared(first: np.ndarray, other: np.ndarray, identity: Identity = FLOAT) -> Comparison:
    found = compare_outputs(first, FLOAT, other, identity)
    assert found is not None
    return found


def noisy(outputs: np.ndarray, decibels: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1, outputs.shape)
    noise *= np.sqrt(np.square(outputs).sum() / np.square(noise).sum()) * 10 ** (-decibels / 20)
    return outputs + noise


@pytest.mark.parametrize("outputs", [TRAINED, UNTRAINED])
@pytest.mark.parametrize(("identity", "explained", "not_explained"), [(FLOAT, 100, 50), (HALF, 55, 25), (INT8, 36, 4)])
def test_noise_that_a_precision_explains_is_not_wrong(
    outputs: np.ndarray, identity: Identity, explained: float, not_explained: float
) -> None:
    good, bad = (compared(outputs, noisy(outputs, each), identity) for each in (explained, not_explained))
    assert good.sqnr_db == pytest.approx(explained)
    assert (good.wrong, good.reason) == (False, None)
    assert bad.wrong is True
    assert bad.reason is not None


def test_equal_outputs_agree_without_a_finite_sqnr() -> None:
    assert compared(TRAINED, TRAINED) == Comparison(agreement=1.0, sqnr_db=None, wrong=False)


@pytest.mark.parametrize("identity", [FLOAT, HALF, INT8])
@pytest.mark.parametrize("outputs", [TRAINED, UNTRAINED])
def test_permuted_classes_are_wrong(outputs: np.ndarray, identity: Identity) -> None:
    assert compared(outputs, np.roll(outputs, 1, axis=1), identity).wrong


@pytest.mark.parametrize("identity", [FLOAT, HALF, INT8])
@pytest.mark.parametrize("outputs", [TRAINED, UNTRAINED])
def test_a_constant_output_is_wrong_even_if_it_is_the_mean(outputs: np.ndarray, identity: Identity) -> None:
    mean = np.broadcast_to(outputs.mean(axis=0), outputs.shape)
    assert compared(outputs, mean, identity).wrong
    assert compared(outputs, np.zeros_like(outputs), identity).wrong


@pytest.mark.parametrize(("identity", "shift"), [(FLOAT, 0.1), (HALF, 1.0), (INT8, 10.0)])
@pytest.mark.parametrize("outputs", [TRAINED, UNTRAINED])
def test_a_changed_last_bias_is_wrong(outputs: np.ndarray, identity: Identity, shift: float) -> None:
    """Beyond the precision: 10 on one logit of INT8 is more than the deviation of all of them, 3, as at training."""
    bias = np.zeros(10)
    bias[4] = shift
    assert compared(outputs, outputs + bias, identity).wrong


def test_outputs_of_other_pictures_are_wrong() -> None:
    for outputs in (TRAINED, UNTRAINED):
        assert compared(outputs, outputs[::-1], INT8).wrong


def test_outputs_that_are_not_finite_are_wrong() -> None:
    broken = TRAINED.copy()
    broken[3, 3] = np.nan
    found = compared(TRAINED, broken, INT8)
    assert found.wrong
    assert "finite" in (found.reason or "")


def test_models_that_say_they_are_others_are_not_called_wrong() -> None:
    named = replace(FLOAT, network="resnet18", weights="a")
    for other in (replace(FLOAT, network="resnet34"), replace(FLOAT, network="resnet18", weights="b")):
        found = compare_outputs(TRAINED, named, -TRAINED, other)
        assert found is not None
        assert (found.wrong, found.reason) == (None, None)
        assert found.agreement < 0.5
    same = compare_outputs(TRAINED, named, -TRAINED, replace(FLOAT, network="resnet18"))
    assert same is not None
    assert same.wrong


def test_probabilities_are_compared_with_probabilities() -> None:
    powers = np.exp(TRAINED)
    given = compared(TRAINED, powers / powers.sum(axis=1, keepdims=True), replace(FLOAT, softmax=True))
    assert given.wrong is False
    assert given.agreement == 1


@pytest.mark.parametrize("other", [TRAINED[:, :5], TRAINED[:9], TRAINED[0]])
def test_other_shapes_are_not_compared(other: np.ndarray) -> None:
    assert compare_outputs(TRAINED, FLOAT, other, FLOAT) is None


def test_accuracy_of_known_labels() -> None:
    labels = TRAINED.argmax(axis=1)
    labels[:16] = (labels[:16] + 1) % 10
    assert top1(TRAINED, labels) == 0.75


def test_the_precision_is_what_the_file_holds(make_model: MakeModel) -> None:
    path = make_model("m.onnx")
    assert precision_of(model_file.load(path)) is Precision.FLOAT32
    half, int8 = (
        onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 3] y) {text}')
        for text in (
            "<float16[1] w = {1}> { h = Cast<to = 10>(x)  p = Mul(h, w)  y = Cast<to = 1>(p) }",
            "<float s = {0.1}, uint8 z = {0}> { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }",
        )
    )
    for model, precision in ((half, Precision.FLOAT16), (int8, Precision.INT8)):
        onnx.save(model, path)
        assert precision_of(model_file.load(path)) is precision
