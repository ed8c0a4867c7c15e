from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from rexport.classifier_head import head_of
from rexport.model_file import Head, Metadata

# what a classifier's output is


def classifier(nodes: str, *, head: Head = Head.LOGITS) -> ir.Model:
    """Return a classifier of four classes whose output ``y`` is what ``nodes`` make of ``z`` and ``v``, logits."""
    text = f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 8, 8] x) => (float[N, 4] y)
        <float[4, 3, 8, 8] w, int64[2] flat = {{0, -1}}, int64[1] last = {{-1}},
         float two = {{2}}, float half = {{0.5}}>
        {{ c = Conv(x, w)  z = Flatten(c)  v = Relu(z)  {nodes} }}"""
    built = ir.from_proto(onnx.parser.parse_model(text))
    Metadata(head=head).write_to(built)
    return built


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Softmax(z)",
        "p = Softmax <axis = 1> (c)  y = Flatten(p)",
        "p = Softmax(z)  h = Cast <to = 10> (p)  f = Cast <to = 1> (h)  r = Reshape(f, flat)  y = Identity(r)",
        "e = Exp(z)  s = ReduceSum <keepdims = 1> (e, last)  y = Div(e, s)",
        "p = Softmax(z)  q = Softmax(v)  t = Add(p, q)  y = Div(t, two)",
        "p = Softmax(z)  q = Softmax(v)  t = Sum(p, q)  y = Mul(half, t)",
        "p = Softmax(z)  q = Softmax(v)  y = Mean(p, q)",
    ],
)
@pytest.mark.parametrize("stated", list(Head))
def test_a_softmax_at_the_end_is_seen_whatever_the_metadata_says(nodes: str, stated: Head) -> None:
    assert head_of(classifier(nodes, head=stated)) is Head.SOFTMAX


@pytest.mark.parametrize("nodes", ["y = LogSoftmax(z)", "p = Softmax(z)  y = Log(p)"])
def test_log_probabilities_are_told_from_probabilities(nodes: str) -> None:
    assert head_of(classifier(nodes, head=Head.SOFTMAX)) is Head.LOG_SOFTMAX


@pytest.mark.parametrize("nodes", ["y = Identity(z)", "y = Flatten(c)", "y = Add(z, two)"])
def test_metadata_that_claims_a_softmax_where_there_is_none_is_not_believed(nodes: str) -> None:
    assert head_of(classifier(nodes, head=Head.SOFTMAX)) is Head.LOGITS


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Relu(z)",
        "p = Softmax(z)  y = Mul(p, two)",
        "p = Softmax(z)  q = Softmax(v)  y = Add(p, q)",
        "p = Softmax(z)  t = Add(p, v)  y = Div(t, two)",
        "e = Exp(z)  s = ReduceSum <keepdims = 1> (v, last)  y = Div(e, s)",
        "y = Div(two, z)",
    ],
)
@pytest.mark.parametrize("stated", [Head.LOGITS, Head.SOFTMAX])
def test_where_the_graph_does_not_tell_the_metadata_does(nodes: str, stated: Head) -> None:
    assert head_of(classifier(nodes, head=stated)) is stated


def test_without_a_graph_the_metadata_tells() -> None:
    engine = classifier("y = Relu(z)")
    engine.graph.outputs[:] = [ir.Value(name="probabilities")]
    assert head_of(engine) is Head.LOGITS
    Metadata(head=Head.SOFTMAX).write_to(engine)
    assert head_of(engine) is Head.SOFTMAX
