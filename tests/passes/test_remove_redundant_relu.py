from __future__ import annotations

import pytest
from onnx import helper

from rexport.passes import RemoveRedundantRelu
from tests.passes._models import assert_untouched, changed_by, make, ops, parse, refusal, rewritten

WEIGHTS = """
    <float zero = {0}, float one = {1}, float six = {6}, float minus = {-1}, float[3, 1, 1] positive = {0, 1, 2},
     int64[8] widths = {0, 0, 1, 1, 0, 0, 1, 1}, int64[1] first = {0}, int64[1] second = {1}>"""


def model(nodes: str, *, opset: int = 18, outputs: str = "float[A, B, C, D] y") -> str:
    graph = f"graph (float[N, 3, 4, 4] x) => ({outputs})"
    return f'<ir_version: 9, opset_import: ["": {opset}]> {graph} {WEIGHTS} {{ {nodes} }}'


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Relu(x)  r = Relu(a)",
        "a = Sigmoid(x)  r = Relu(a)",
        "a = Softmax<axis = 1>(x)  r = Relu(a)",
        "a = Abs(x)  r = Relu(a)",
        "a = Clip(x, zero, six)  r = Relu(a)",
        "a = Clip(x, one)  r = Relu(a)",
        "a = Relu(x)  p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)  r = Relu(p)",
        "a = Relu(x)  p = AveragePool<kernel_shape = [2, 2]>(a)  r = Relu(p)",
        "a = Relu(x)  p = GlobalAveragePool(a)  r = Relu(p)",
        "a = Relu(x)  t = Transpose<perm = [0, 2, 1, 3]>(a)  s = Slice(t, first, second, second)  r = Relu(s)",
        "a = Relu(x)  b = Sigmoid(x)  c = Concat<axis = 1>(a, b, a)  r = Relu(c)",
        "a = Relu(x)  b = Add(a, positive)  c = Mul(b, a)  d = Add(b, c)  r = Relu(d)",
        "r = Relu(x)  a = Clip(r, zero, six)",
        "r = Relu(x)  a = Clip(r, one, six)  b = Clip(r, zero)",
    ],
)
def test_a_relu_that_changes_nothing_goes(nodes: str) -> None:
    results = [part.split(" = ")[0].strip() for part in nodes.split("  ")]
    relu = results.index("r")
    read = [i for i in range(len(results)) if i != relu or i == len(results) - 1]
    ends = "  ".join(f"y{i} = Neg({results[i]})" for i in read)
    outputs = ", ".join(f"float[A{i}, B{i}, C{i}, D{i}] y{i}" for i in read)
    original = parse(model(f"{nodes}  {ends}", outputs=outputs))
    changed = rewritten(RemoveRedundantRelu, original, of_scale=0)
    assert ops(changed)["Relu"] == ops(original)["Relu"] - 1


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Relu(x)",
        "a = Tanh(x)  y = Relu(a)",
        "a = Clip(x, minus, six)  y = Relu(a)",
        "a = Clip(x, zero, minus)  y = Relu(a)",
        "a = LeakyRelu(x)  y = Relu(a)",
        "a = Relu(x)  b = Sub(a, one)  y = Relu(b)",
        "a = Relu(x)  b = Add(a, minus)  y = Relu(b)",
        "a = Relu(x)  b = Mul(a, x)  y = Relu(b)",
        "a = Relu(x)  p = Pad(a, widths, minus)  y = Relu(p)",
        "a = Relu(x)  b = Concat<axis = 1>(a, x)  y = Relu(b)",
        "a = Relu(x)  y = Clip(a, minus, six)",
        "a = Relu(x)  y = Clip(six, zero, a)",
        "a = Relu(x)  b = Clip(a, zero, six)  y = Add(a, b)",
    ],
)
def test_a_relu_that_may_change_something_stays(nodes: str) -> None:
    text = model(nodes) if "Clip(six" not in nodes else model(nodes).replace("N, 3, 4, 4", "").replace("A, B, C, D", "")
    original = parse(text.replace("float[]", "float"))
    assert_untouched(RemoveRedundantRelu, original)


def test_a_clip_of_older_opsets() -> None:
    original = parse("""
        <ir_version: 7, opset_import: ["": 9]>
        graph (float[N, 3] x) => (float[N, 3] y)
        { r = Relu(x)  c = Clip<min = 0.0, max = 6.0>(r)  s = Relu(c)  y = Neg(s) }""")
    rewritten(RemoveRedundantRelu, original, {"Clip": 1, "Neg": 1}, changed=2, of_scale=0)


def test_the_name_of_an_output_stays() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> graph (float[4] x) => (float[4] y{}) {{ a = Relu(x)  y = Relu(a) }}'
    changed, report = changed_by(RemoveRedundantRelu, parse(text.format("")))
    assert report.changed == 1
    assert [value.name for value in changed.graph.outputs] == ["y"]
    why = refusal(RemoveRedundantRelu, parse(text.format(", float[4] a")))
    assert why == "it gives an output of the model its name"


def test_many_sums_are_not_followed_for_ever() -> None:
    """What is far above is given up on, so that the time stays linear; a diamond is looked at once."""
    nodes = [helper.make_node("Abs", ["x"], ["a0"])]
    nodes += [helper.make_node("Add", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(200)]
    nodes += [helper.make_node("Relu", [f"a{i}"], [f"r{i}"]) for i in (40, 200)]
    nodes += [helper.make_node("Sum", ["r40", "r200"], ["y"])]
    changed, report = changed_by(RemoveRedundantRelu, make(nodes, {}, x=["N", 3], y=["N", 3]))
    assert report.changed == 1
    assert ops(changed)["Relu"] == 1
