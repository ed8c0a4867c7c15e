from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rexport.model_file import to_bytes
from rexport.models import build
from rexport.passes import (
    FoldConstants,
    FuseTransposes,
    MoveTransposes,
    Reference,
    RemoveIdentity,
    RemoveNoOps,
    ShareDuplicates,
    fuse,
)
from tests._deep import deep
from tests._networks import torchscript_export, trained_like
from tests.passes._channels_last import channels_last
from tests.passes._models import assert_untouched, ops, parse, refusal, rewritten
from tests.passes._random_graphs import Case, cases
from tests.passes.test_random_graphs import assert_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TO_LAST, TO_FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"


# whole networks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet[depth=10,stages=4,stem=deep,downsample=pool]"])
def test_a_network_with_channels_last_is_fused_as_one_with_channels_first(name: str) -> None:
    original = torchscript_export(trained_like(build(name)), size=32)
    last = ir.from_proto(channels_last(onnx.load_from_string(to_bytes(original))))
    assert ops(last)["Transpose"] > 2 * ops(last)["Conv"]
    reference = Reference(last)
    result = fuse(last, reference=reference)
    assert not any(report.rolled_back for report in result.reports)
    reference.difference(result.model)
    assert ops(result.model) == ops(fuse(original).model) + Counter(Transpose=1)  # that of the input


# single operators


def inferred(text: str) -> ir.Model:
    """Return the model of a text with the shapes of all its tensors, as FoldConstants leaves it."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(parse(text))))


def between(middle: str, *, weights: str = "", x: str = "float[N, 4, 5, 3]", y: str = "float[A, B, C, D]") -> str:
    """Return a model in which some operators stand between two Transposes, to channels last and back."""
    return (
        f'<ir_version: 9, opset_import: ["": 18]> graph ({x} x) => ({y} y) <{weights}> '
        f"{{ a = {TO_LAST}(x)  {middle}  y = {TO_FIRST}(b) }}"
    )


@pytest.mark.parametrize(
    ("middle", "weights"),
    [
        ("b = Relu(a)", ""),
        ("b = Clip(a, low, high)", "float low = {0}, float high = {6}"),
        ("c = Sigmoid(a) b = Mul(a, c)", ""),
        ("b = Add(a, w)", "float[4] w = {1, 2, 3, 4}"),
        ("b = Sub(w, a)", "float[5, 1, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2}"),
        ("b = Mul(a, w)", "float[1, 1, 1, 1] w = {3}"),
        ("b = PRelu(a, w)", "float[1, 1, 4] w = {0.1, 0.2, 0.3, 0.4}"),
        ("b = Concat<axis = 3>(a, a)", ""),
        ("b = Concat<axis = -2>(a, a)", ""),
        ("b = Softmax(a)", ""),
        ("b = Pad(a, w)", "int64[8] w = {0, 1, 2, 3, 0, 4, 5, 0}"),
        ('b = Pad<mode = "reflect">(a, w)', "int64[8] w = {0, 1, 2, 1, 0, 2, 0, 0}"),
        ("b = Slice(a, start, end, axes)", "int64[1] start = {1}, int64[1] end = {9}, int64[1] axes = {3}"),
        ("b = Slice(a, start, end)", "int64[2] start = {0, 1}, int64[2] end = {9, 9}"),
        ("c, d = Split<axis = 3, num_outputs = 2>(a) b = Add(c, d)", ""),
        ("c = ReduceMean(a, axes) b = Mul(a, c)", "int64[2] axes = {1, 2}"),
        ("c = ReduceMax<keepdims = 1>(a, axes) b = Sub(a, c)", "int64[1] axes = {-1}"),
        ("b = Resize(a, , w)", "float[4] w = {1, 2, 3, 1}"),
        ('b = Resize<mode = "linear">(a, , w)', "float[4] w = {1, 2, 2, 1}"),
        ("b = Tile(a, w)", "int64[4] w = {1, 2, 3, 1}"),
    ],
)
def test_what_stands_between_two_transposes_computes_without(middle: str, weights: str) -> None:
    original = inferred(between(middle, weights=weights))
    model = rewritten(MoveTransposes, original)
    assert "Transpose" not in ops(model)
    assert len(model.graph) == len(original.graph) - 2


@pytest.mark.parametrize(
    ("end", "weights", "y"),
    [
        ("y = ReduceMean<keepdims = 0>(b, w)", "int64[2] w = {1, 2}", "float[A, B]"),
        ("c = ReduceMean(b, w) y = Flatten(c)", "int64[2] w = {1, 2}", "float[A, B]"),
        ("c = ReduceMean(b, w) y = Reshape(c, s)", "int64[2] w = {-3, -2}, int64[2] s = {-1, 4}", "float[A, B]"),
        ("c = ReduceMean(b, w) y = Squeeze(c, w)", "int64[2] w = {1, 2}", "float[A, B]"),
        ("i = ArgMax<axis = 3, keepdims = 0>(b) y = Cast<to = 1>(i)", "", "float[A, B, C]"),
        ("s = Shape(b) n = Gather(s, w) y = Cast<to = 1>(n)", "int64[2] w = {1, -1}", "float[A]"),
        ("s = Shape(b) y = Cast<to = 1>(s)", "", "float[A]"),
    ],
)
def test_an_end_without_channels_needs_no_transpose(end: str, weights: str, y: str) -> None:
    text = (
        f'<ir_version: 9, opset_import: ["": 18]> graph (float[N, 4, 5, 3] x) => ({y} y) <{weights}> '
        f"{{ a = {TO_LAST}(x)  b = Relu(a)  {end} }}"
    )
    assert "Transpose" not in ops(rewritten(MoveTransposes, inferred(text)))


def test_excitation_whose_axes_a_reshape_moves() -> None:
    """As tf2onnx writes it: the Transpose of one pixel is a Reshape, there and back."""
    sizes = "int64[2] axes = {1, 2}, int64[4] first = {-1, 4, 1, 1}, int64[4] last = {-1, 1, 1, 4}"
    middle = (
        "c = ReduceMean(a, axes)  d = Reshape(c, first)  e = Conv(d, w)  f = Reshape(e, last)  g = Sigmoid(f) "
        "b = Mul(a, g)"
    )
    values = ", ".join(str(number / 8) for number in range(16))
    original = inferred(between(middle, weights=f"{sizes}, float[4, 4, 1, 1] w = {{{values}}}"))
    model = rewritten(MoveTransposes, original, changed=1)
    assert ops(model) == {"ReduceMean": 1, "Conv": 1, "Sigmoid": 1, "Mul": 1}


def test_a_product_between_transposes_is_a_convolution() -> None:
    weight = "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] k = {1, 2}"
    model = rewritten(MoveTransposes, inferred(between("c = MatMul(a, w)  b = Add(c, k)", weights=weight)))
    assert ops(model) == {"Conv": 1, "Add": 1}
    assert ops(fuse(model).model) == {"Conv": 1}


def test_the_transpose_of_an_input_serves_all_that_read_it() -> None:
    text = f"""<ir_version: 9, opset_import: ["": 18]> graph (float[N, 4, 4, 3] x) => (float[A, B, C, D] y)
        <float[3, 3, 1, 1] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}> {{
        a = {TO_FIRST}(x)  b = Conv(a, w)  c = {TO_LAST}(b)  d = Add(c, x)
        e = {TO_FIRST}(d)  f = Conv(e, w)  g = {TO_LAST}(f)  y = Add(g, d) }}"""
    fused = fuse(parse(text)).model
    assert ops(fused) == {"Transpose": 2, "Conv": 2, "Add": 2}
    assert [value.name for value in fused.graph.outputs] == ["y"]


def test_an_output_of_the_model_keeps_its_name_and_its_axes() -> None:
    text = f"""<ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 4, 5, 3] x) => (float[A, B, C, D] y, float[E, F, G, H] r) {{
        a = {TO_LAST}(x)  r = Relu(a)  b = Neg(r)  c = Abs(b)  d = {TO_FIRST}(c)  e = {TO_FIRST}(b)  y = Add(d, e) }}"""
    model = fuse(inferred(text), passes=[MoveTransposes]).model
    Reference(parse(text)).difference(model)
    assert ops(model)["Transpose"] == 1
    assert [value.name for value in model.graph.outputs] == ["y", "r"]


def test_a_convolution_is_freed_for_what_follows() -> None:
    """As many Transposes are left, but the addition is next to the convolution and fuses with it."""
    text = f"""<ir_version: 9, opset_import: ["": 18]> graph (float[N, 3, 4, 4] x) => (float[A, B, C, D] y)
        <float[3, 3, 1, 1] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[3] k = {{1, 2, 3}}>
        {{ a = Conv(x, w)  b = {TO_LAST}(a)  c = Add(b, k)  y = Relu(c) }}"""
    assert ops(fuse(parse(text)).model) == {"Conv": 1, "Relu": 1, "Transpose": 1}


def test_what_would_leave_as_many_stays() -> None:
    text = f"""<ir_version: 9, opset_import: ["": 18]> graph (float[N, 4, 5, 3] x) => (float[A, B, C, D] y)
        {{ a = {TO_LAST}(x)  b = Relu(a)  y = Sigmoid(b) }}"""
    assert refusal(MoveTransposes, inferred(text)) == "moved past b (2 operators in all), as many would be left"


@pytest.mark.parametrize(
    "middle",
    [
        "b = LayerNormalization<axis = -1>(a, w)",
        "b = CumSum(a, axis)",
        "c = Softmax<axis = 1>(a) b = GlobalAveragePool(c)",
        'b = Resize<mode = "cubic">(a, , s)',
    ],
)
def test_other_operators_keep_theirs(middle: str) -> None:
    weights = "float[4] w = {1, 2, 3, 4}, int64 axis = {1}, float[4] s = {1, 1, 1, 1}"
    changed = fuse(parse(between(middle, weights=weights)), passes=[MoveTransposes])
    assert ops(changed.model)["Transpose"] == 2


def test_softmax_of_old_opsets_stays() -> None:
    original = inferred(between("b = Softmax<axis = 3>(a)").replace('"": 18', '"": 12'))
    assert_untouched(MoveTransposes, original)


# graphs at random


@dataclass
class _Graph:
    """A graph of tensors with a few axes each, that grows by an operator at a time."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    random: np.random.Generator
    rank: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array if array.dtype == np.int64 else array.astype(np.float32)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op_type: str, inputs: Sequence[str], *shapes: Sequence[int], **attributes: object) -> None:
        names = [f"t{len(self.nodes)}_{index}" for index in range(len(shapes))]
        self.nodes.append(helper.make_node(op_type, inputs, names, **attributes))
        self.tensors |= {name: tuple(shape) for name, shape in zip(names, shapes, strict=True)}

    def grow(self) -> None:
        name = self.pick(*list(self.tensors)[::-1][:4])
        shape = self.tensors[name]
        if len(shape) != self.rank:
            return self.widen(name, shape)
        kind = self.pick(*["transpose"] * 6, *["number"] * 3, *["pair"] * 3, *["constant"] * 3, "conv", "conv", "other")
        if kind == "transpose":
            order = self.pick((0, *range(2, self.rank), 1), (0, self.rank - 1, *range(1, self.rank - 1)))
            if self.pick(*[False] * 9, True):
                order = self.draw(st.permutations(range(self.rank)))
            return self.add("Transpose", [name], [shape[axis] for axis in order], perm=list(order))
        if kind == "number":
            return self.add(self.pick("Relu", "Sigmoid", "Neg", "LeakyRelu", "Identity"), [name], shape)
        if kind == "pair":
            return self.pair(name, shape)
        if kind == "constant":
            return self.with_constant(name, shape)
        if kind == "conv":
            weight = self.random.standard_normal((shape[1], shape[1], *[1] * (self.rank - 2))) / np.sqrt(shape[1])
            return self.add("Conv", [name, self.constant(weight)], shape)
        return self.other(name, shape)

    def pair(self, name: str, shape: tuple[int, ...]) -> None:
        """Join two tensors of one shape, or of one that broadcasts to it."""
        fitting = [
            other
            for other, sizes in self.tensors.items()
            if len(sizes) == len(shape) and all(b in (1, a) for a, b in zip(shape, sizes, strict=True))
        ]
        second = self.pick(*fitting[::-1])
        pair = [name, second] if self.pick(True, False) else [second, name]
        self.add(self.pick("Add", "Mul", "Sub", "Max"), pair, shape)

    def with_constant(self, name: str, shape: tuple[int, ...]) -> None:
        sizes = [self.pick(size, 1) for size in shape][self.pick(*range(self.rank + 1)) :]
        array = self.random.uniform(0.5, 1.5, sizes)
        pair = [name, self.constant(np.asarray(array))]
        self.add(self.pick("Add", "Mul", "Sub", "Min"), pair if self.pick(True, False) else pair[::-1], shape)

    def widen(self, name: str, shape: tuple[int, ...]) -> None:
        """Give a tensor with fewer axes more of them."""
        axes = sorted(self.draw(st.permutations(range(self.rank)))[: self.rank - len(shape)])
        full = list(shape)
        for axis in axes:
            full.insert(axis, 1)
        if self.pick(True, False):
            self.add("Unsqueeze", [name, self.integers(*axes)], full)
        else:
            self.add("Reshape", [name, self.integers(*(-1 if axis == 0 else n for axis, n in enumerate(full)))], full)

    def other(self, name: str, shape: tuple[int, ...]) -> None:
        axis = self.pick(*range(self.rank))
        signed = self.pick(axis, axis - self.rank)
        kind = self.pick(
            *("reduce", "concat", "softmax", "pad", "slice", "split", "resize", "product", "flat", "pool", "argmax"),
            "shape",
        )
        if kind == "reduce":
            axes = sorted({axis, self.pick(*range(self.rank))})
            keeps = self.pick(1, 0)
            after = [1 if a in axes else n for a, n in enumerate(shape) if keeps or a not in axes]
            inputs = [name, self.integers(*(self.pick(a, a - self.rank) for a in axes))]
            self.add(self.pick("ReduceMean", "ReduceMax", "ReduceSum"), inputs, after, keepdims=keeps)
        elif kind == "concat":
            rest = _without(shape, axis)
            others = [n for n, s in self.tensors.items() if len(s) == self.rank and _without(s, axis) == rest]
            parts = [name, self.pick(*others[::-1])]
            total = sum(self.tensors[part][axis] for part in parts)
            if total <= 12:
                self.add("Concat", parts, _with(shape, axis, total), axis=signed)
        elif kind == "softmax":
            self.add("Softmax", [name], shape, axis=signed)
        elif kind == "pad" and self.pick(False, False, True):  # ONNX Runtime's own optimizer gets these axes wrong
            inputs = [name, self.integers(1, 2), "", self.integers(signed)]
            self.add("Pad", inputs, _with(shape, axis, shape[axis] + 3))
        elif kind == "pad":
            widths = [self.pick(0, 1) for _ in range(2 * self.rank)]
            self.add(
                "Pad",
                [name, self.integers(*widths)],
                [n + a + b for n, a, b in zip(shape, widths[: self.rank], widths[self.rank :], strict=True)],
            )
        elif kind == "slice" and shape[axis] > 1:
            inputs = [name, *(self.integers(n) for n in (1, 2**31, signed))]
            self.add("Slice", inputs, _with(shape, axis, shape[axis] - 1))
        elif kind == "split" and shape[axis] > 1:
            sizes = (1, shape[axis] - 1)
            self.add("Split", [name, self.integers(*sizes)], *(_with(shape, axis, n) for n in sizes), axis=signed)
        elif kind == "resize" and shape[axis] < 6:
            scales = self.constant(np.array(_with([1] * self.rank, axis, 2), np.float32))
            self.add("Resize", [name, "", scales], _with(shape, axis, 2 * shape[axis]), mode="nearest")
        elif kind == "product":
            weight = self.random.standard_normal((shape[-1], 3)) / np.sqrt(shape[-1])
            self.add("MatMul", [name, self.constant(weight)], [*shape[:-1], 3])
        elif kind == "flat":
            self.add("Flatten", [name], [shape[0], int(np.prod(shape[1:]))])
        elif kind == "pool":
            self.add("GlobalAveragePool", [name], [*shape[:2], *[1] * (self.rank - 2)])
        elif kind == "shape":
            self.nodes.append(helper.make_node("Shape", [name], [f"s{len(self.nodes)}"]))
            sizes = self.nodes[-1].output[0]
            if self.pick(True, False):
                self.nodes.append(
                    helper.make_node("Gather", [sizes, self.integers(signed, 0)], [f"g{len(self.nodes)}"])
                )
            self.add("Cast", [self.nodes[-1].output[0]], [self.rank if self.nodes[-1].op_type == "Shape" else 2], to=1)
        elif kind == "argmax":
            self.nodes.append(helper.make_node("ArgMax", [name], [f"i{len(self.nodes)}"], axis=signed, keepdims=0))
            self.add("Cast", [self.nodes[-1].output[0]], [n for a, n in enumerate(shape) if a != axis], to=1)


def _with(shape: Sequence[int], axis: int, size: int) -> list[int]:
    return [size if index == axis else old for index, old in enumerate(shape)]


def _without(shape: Sequence[int], axis: int) -> list[int]:
    return [size for index, size in enumerate(shape) if index != axis]


@st.composite
def graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Case:
    graph = _Graph(draw, np.random.default_rng(draw(st.integers(0, 2**16))), draw(st.sampled_from([4, 4, 4, 3, 5])))
    shape = (2, *(graph.pick(3, 4, 1, 5) for _ in range(graph.rank - 1)))
    graph.tensors["x"] = shape
    for _ in range(draw(st.integers(3, 14))):
        graph.grow()
    read = {name for node in graph.nodes for name in node.input}
    ends = [name for name in graph.tensors if name not in read]
    more = [name for name in graph.tensors if name in read and name != "x"]
    if more and graph.pick(False, False, True):
        ends.append(graph.pick(*more))
    batch = graph.pick("n", 2)
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape[1:]])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(graph.tensors[name]))
                for name in ends
            ],
            [numpy_helper.from_array(array, name) for name, array in graph.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return Case(proto, {"x": graph.random.standard_normal(shape).astype(np.float32)})


PASSES = (FoldConstants, RemoveIdentity, RemoveNoOps, FuseTransposes, MoveTransposes, ShareDuplicates)


def try_graphs(check: Callable[[Case], object], graphs: st.SearchStrategy[Case], *, part: int, count: int) -> None:
    @seed(part)
    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(case=graphs)
    def look(case: Case) -> None:
        check(case)

    look()


def assert_equal_with_fewer(case: Case) -> None:
    result = fuse(case.model, passes=PASSES)
    assert {report.name: report.rolled_back for report in result.reports if report.rolled_back} == {}
    assert_equal(case, result.model)
    before = ops(fuse(case.model, passes=(FoldConstants,)).model)["Transpose"]
    assert ops(result.model)["Transpose"] <= before
    again = fuse(result.model, passes=PASSES)
    assert [report.changed for report in again.reports] == [0] * len(PASSES)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [(0, 150), *deep(*((part, 2000) for part in range(1, 5)))])
def test_any_graph_of_transposes_computes_the_same_with_no_more_of_them(part: int, count: int) -> None:
    try_graphs(assert_equal_with_fewer, graphs(), part=part, count=count)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [(0, 60), *deep(*((part, 1000) for part in range(1, 4)))])
def test_any_network_with_channels_last_computes_the_same(part: int, count: int) -> None:
    def check(case: Case) -> None:
        if case.feeds["x"].ndim != 4:
            return
        pictures = np.ascontiguousarray(case.feeds["x"].transpose(0, 2, 3, 1))
        last = Case(channels_last(case.proto), case.feeds | {"x": pictures})
        result = fuse(last.model)
        assert_equal(last, result.model)
        assert ops(result.model)["Transpose"] <= ops(last.model)["Transpose"]
        assert not any(report.changed for report in fuse(result.model).reports)

    try_graphs(check, cases(), part=part, count=count)
