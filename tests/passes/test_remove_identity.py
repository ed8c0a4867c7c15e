from __future__ import annotations

import numpy as np
import pytest

from rexport.passes import RemoveIdentity
from tests.passes._models import assert_close, changed_by, ops, parse, refusal, run


def model(inputs: str, outputs: str, weights: str, nodes: str, opset: int = 18) -> str:
    return f'<ir_version: 9, opset_import: ["": {opset}]> graph ({inputs}) => ({outputs}) <{weights}> {{ {nodes} }}'


@pytest.mark.parametrize(
    ("outputs", "nodes", "left"),
    [
        ("float[4] y", "a = Identity(x)  y = Relu(a)", {"Relu": 1}),
        ("float[4] y", "a = Relu(x)  y = Identity(a)", {"Relu": 1}),
        ("float[4] y", "a = Relu(x)  b = Identity(a)  c = Identity(b)  y = Identity(c)", {"Relu": 1}),
        ("float[4] y", "a = Relu(x)  b = Dropout(a)  y = Neg(b)", {"Relu": 1, "Neg": 1}),
        ("float[4] y", "a = Relu(x)  b, mask = Dropout(a, half, no)  y = Neg(b)", {"Relu": 1, "Neg": 1}),
        ("float[4] y, float[4] z", "a = Identity(x)  y = Relu(a)  z = Neg(a)", {"Relu": 1, "Neg": 1}),
        ("float[4] y, float[4] z", "y = Relu(x)  a = Identity(y)  z = Neg(a)", {"Relu": 1, "Neg": 1}),
    ],
)
def test_what_hands_its_input_on_goes(outputs: str, nodes: str, left: dict[str, int]) -> None:
    original = parse(model("float[4] x", outputs, "float half = {0.5}, bool no = {0}", nodes))
    same, report = changed_by(RemoveIdentity, original)
    assert report.refusals == ()
    assert ops(same) == left
    assert [value.name for value in same.graph.outputs] == [value.name for value in original.graph.outputs]
    assert_close(run(same), run(original), of_scale=0)


@pytest.mark.parametrize(
    ("outputs", "nodes", "reason"),
    [
        ("float[4] y", "y = Identity(x)", "it gives an output of the model its name"),
        ("float[4] y", "y = Identity(w)", "it gives an output of the model its name"),
        ("float[4] y, float[4] z", "y = Relu(x)  z = Identity(y)", "it gives an output of the model its name"),
        ("float[4] y", "a = Dropout(x, half, yes)  y = Relu(a)", "it is a Dropout in training mode"),
        ("float[4] y", "t = Identity(flag)  a = Dropout(x, half, t)  y = Relu(a)", "it is a Dropout in training mode"),
        ("float[4] y, bool[4] m", "a, m = Dropout(x)  y = Relu(a)", "the mask of the Dropout is used"),
        ("float[4] y, bool[4] z", "a, m = Dropout(x)  y = Relu(a)  z = Not(m)", "the mask of the Dropout is used"),
    ],
)
def test_refusals_say_why(outputs: str, nodes: str, reason: str) -> None:
    weights = "float half = {0.5}, bool yes = {1}, float[4] w = {1, 2, 3, 4}"
    original = parse(model("float[4] x, bool flag", outputs, weights, nodes))
    _, report = changed_by(RemoveIdentity, original)
    assert [refused.why for refused in report.refusals] == [reason]


def test_two_names_for_one_tensor_keep_one_identity() -> None:
    nodes = "a = Relu(x)  y = Identity(a)  z = Identity(a)"
    original = parse(model("float[4] x", "float[4] y, float[4] z", "float unused = {0}", nodes))
    same, report = changed_by(RemoveIdentity, original)
    assert report.changed == 1
    assert ops(same) == {"Relu": 1, "Identity": 1}
    assert_close(run(same), run(original), of_scale=0)


@pytest.mark.parametrize(
    ("attribute", "is_inference"), [("<is_test = 1>", True), ("<is_test = 0>", False), ("", False)]
)
def test_before_opset_7_dropout_says_whether_it_is_in_training(attribute: str, is_inference: bool) -> None:
    original = parse(model("float[4] x", "float[4] y", "", f"a = Dropout{attribute}(x)  y = Relu(a)", opset=6))
    if is_inference:
        assert changed_by(RemoveIdentity, original)[1].changed == 1
    else:
        assert refusal(RemoveIdentity, original) == "it is a Dropout in the training mode of opsets before 7"


def test_a_tensor_that_a_branch_reads_is_found_there() -> None:
    nodes = """
        a = Identity(x)
        y = If(flag) <then_branch = yes () => (float[4] b) { b = Relu(a) },
                      else_branch = no () => (float[4] c) { c = Neg(a) }>"""
    original = parse(model("float[4] x, bool flag", "float[4] y", "", nodes))
    same, report = changed_by(RemoveIdentity, original)
    assert report.changed == 1
    for flag in (True, False):
        feeds = {"flag": np.array(flag)}
        np.testing.assert_array_equal(run(same, feeds)[0], run(original, feeds)[0])
