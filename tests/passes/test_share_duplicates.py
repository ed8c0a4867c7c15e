from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from rexport.passes import ShareDuplicates
from tests.passes._models import assert_close, assert_untouched, changed_by, make, ops, parse, rewritten, run


def model(nodes: str, outputs: str = "float[2, 2] y", inputs: str = "", opset: int = 18) -> str:
    weights = "<float[2, 2] a = {1, 2, 3, 4}, float[2, 2] b = {1, 2, 3, 4}, float[4] c = {1, 2, 3, 4}>"
    graph = f"graph (float[2, 2] x{inputs}) => ({outputs})"
    return f'<ir_version: 9, opset_import: ["": {opset}]> {graph} {weights} {{ {nodes} }}'


def test_equal_constants_are_stored_once() -> None:
    original = parse(model("p = Add(x, a)  q = Mul(p, b)  y = Sub(q, a)"))
    changed = rewritten(ShareDuplicates, original, of_scale=0)
    assert list(changed.graph.initializers) == ["a", "c"]  # of another shape


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_constant_that_the_caller_knows_stays(kind: str, which: str) -> None:
    changes = {kind: f", float[2, 2] {which}" if kind == "inputs" else f"float[2, 2] y, float[2, 2] {which}"}
    original = parse(model("p = Add(x, a)  y = Mul(p, b)", **changes))
    changed, report = changed_by(ShareDuplicates, original)
    assert report.changed == 0
    assert list(changed.graph.initializers) == ["a", "b", "c"]


@pytest.mark.parametrize(("dtype", "other"), [("float32", "int32"), ("float16", "int16")])
def test_the_same_bytes_of_another_type_stay(dtype: str, other: str) -> None:
    weights = {"a": np.zeros(3, dtype), "b": np.zeros(3, other)}
    nodes = [helper.make_node("Cast", ["b"], ["c"], to=10 if dtype == "float16" else 1)]
    nodes += [helper.make_node("Add", ["x", "a"], ["d"]), helper.make_node("Add", ["d", "c"], ["y"])]
    assert_untouched(ShareDuplicates, make(nodes, weights, x=["N", 3], y=["N", 3]))


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ("p = Relu(x)  q = Relu(x)  y = Add(p, q)", {"Relu": 1, "Add": 1}),
        ("p = Relu(x)  q = Relu(x)  r = Neg(p)  s = Neg(q)  y = Add(r, s)", {"Relu": 1, "Neg": 1, "Add": 1}),
        ("p = Add(x, a)  q = Add(x, b)  y = Mul(p, q)", {"Add": 1, "Mul": 1}),
        ("p = LeakyRelu<alpha = 0.5>(x)  q = LeakyRelu<alpha = 0.5>(x)  y = Add(p, q)", {"LeakyRelu": 1, "Add": 1}),
        (
            "p = Transpose<perm = [1, 0]>(x)  q = Transpose<perm = [1, 0]>(x)  y = Add(p, q)",
            {"Transpose": 1, "Add": 1},
        ),
    ],
)
def test_equal_nodes_run_once(nodes: str, left: dict[str, int]) -> None:
    original = parse(model(nodes))
    changed, _ = changed_by(ShareDuplicates, original)
    assert ops(changed) == left
    np.testing.assert_array_equal(run(changed)[0], run(original)[0])


@pytest.mark.parametrize(
    "nodes",
    [
        "p = LeakyRelu<alpha = 0.5>(x)  q = LeakyRelu<alpha = 0.25>(x)  y = Add(p, q)",
        "p = LeakyRelu(x)  q = LeakyRelu<alpha = 0.25>(x)  y = Add(p, q)",
        "p = Sub(x, c2)  q = Sub(c2, x)  y = Add(p, q)",
        "p = RandomNormalLike(x)  q = RandomNormalLike(x)  y = Add(p, q)",
        "p = RandomUniformLike(x)  q = RandomUniformLike(x)  y = Add(p, q)",
        "p = Transpose<perm = [1, 0]>(x)  q = Transpose<perm = [0, 1]>(x)  y = Add(p, q)",
        "p = Relu(x)  q = Relu(p)  y = Add(p, q)",
    ],
)
def test_other_nodes_run_each(nodes: str) -> None:
    original = parse(model(nodes.replace("c2", "two")).replace("float[4] c", "float two = {2}, float[4] c"))
    same, _ = changed_by(ShareDuplicates, original)
    assert ops(same) == ops(original)


def test_outputs_keep_their_names_and_nodes() -> None:
    original = parse(
        model("y = Relu(x)  z = Relu(x)  p = Relu(x)  w = Neg(p)", "float[2, 2] y, float[2, 2] z, float[2, 2] w")
    )
    changed, _ = changed_by(ShareDuplicates, original)
    assert [value.name for value in changed.graph.outputs] == ["y", "z", "w"]
    assert_close(run(changed), run(original), of_scale=0)


def test_what_a_branch_reads_is_found_there_and_branches_stay() -> None:
    branches = """If(flag) <then_branch = yes () => (float[2, 2] d) { d = Add(q, b) },
                             else_branch = no () => (float[2, 2] e) { e = Neg(q) }>"""
    original = parse(
        model(
            f"p = Add(x, a)  q = Relu(x)  r = Relu(x)  s = {branches}  t = {branches.replace('q', 'r')}"
            "  u = Add(s, t)  y = Add(u, p)".replace("yes", "ja"),
            inputs=", bool flag",
        )
    )
    changed, _ = changed_by(ShareDuplicates, original)
    assert ops(changed)["If"] == 2
    assert ops(changed)["Relu"] == 1
    for flag in (True, False):
        feeds = {"flag": np.array(flag)}
        np.testing.assert_array_equal(run(changed, feeds)[0], run(original, feeds)[0])


def test_operators_of_another_domain_stay() -> None:
    original = parse(model("p = Relu(x)  q = Relu(x)  y = Add(p, q)"))
    for index in (0, 1):
        original.graph.node(index).domain = "own"
    same, _ = changed_by(ShareDuplicates, original)
    assert ops(same) == {"Relu": 2, "Add": 1}


@pytest.mark.slow
def test_a_thousand_layers() -> None:
    weights = {f"w{i}": np.full(3, i % 7, np.float32) for i in range(2000)}
    names = ["x", *(f"h{i}" for i in range(1999)), "y"]
    nodes = [helper.make_node("Add", [names[i], f"w{i}"], [names[i + 1]]) for i in range(2000)]
    changed, report = changed_by(ShareDuplicates, make(nodes, weights, x=["N", 3], y=["N", 3]))
    assert report.changed == 2000 - 7
    assert len(changed.graph.initializers) == 7


def test_statistics_that_are_still_counted_stay_their_own() -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["": 14]>
        g (float[2, 2, 3, 3] x) => (float[2, 2, 3, 3] y)
        <float[2] scale = {1, 2}, float[2] bias = {0, 0}, float[2] mean = {0, 0}, float[2] var = {1, 3}> {
            y, m, v = BatchNormalization<training_mode = 1>(x, scale, bias, mean, var)
        }
    """)
    shared, report = changed_by(ShareDuplicates, model)
    assert report.changed == 0
    assert len(shared.graph.initializers) == 4
