"""Parallel branches become grouped convolutions where they are equal, and only there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport import models
from rexport.exporting import export
from rexport.passes import MergeBranches, fuse, verify_equal
from rexport.preprocessing import Preprocessing
from tests._deep import deep
from tests._networks import torchscript_export, trained_like
from tests.passes._models import batch_norm, batch_norm_node, make, ops

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

_PART = 2  # channels of a branch
_SIDE = 9


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Branches to build: what they read, their layers, and what they end in; ``odd`` is one that is different."""

    count: int = 3
    begin: str = "shared"  # or split, slice
    layers: tuple[str, ...] = ("conv", "relu", "conv")
    end: str = "concat"  # or sum, sum and rest
    kernel: int = 3
    stride: int = 1
    bias: tuple[bool, ...] = (False, False, False, False)
    odd: str = ""
    seed: int = 0


@dataclass
class _Builder:
    plan: _Plan
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def build(self) -> ir.Model:
        plan = self.plan
        self.random = np.random.default_rng(plan.seed)
        sources = self._sources()
        results = [self._branch(index, source) for index, source in enumerate(sources)]
        if plan.end == "concat":
            self.nodes.append(helper.make_node("Concat", results, ["y0"], name="join", axis=1))
        else:
            total = "shortcut" if plan.end == "sum and rest" else results.pop(0)
            if total == "shortcut":
                self.nodes.append(helper.make_node("Sigmoid", ["x"], ["shortcut"]))
            for index, result in enumerate(results):
                last = index == len(results) - 1
                self.nodes.append(helper.make_node("Add", [total, result], ["y0" if last else f"sum{index}"]))
                total = f"sum{index}"
        self.nodes.append(helper.make_node("Tanh", ["y0"], ["y"]))
        channels = plan.count * _PART
        return make(self.nodes, self.weights, x=["n", channels, _SIDE, _SIDE], y=["n", None, None, None], opset=17)

    def _sources(self) -> list[str]:
        plan = self.plan
        if plan.begin == "shared":
            return ["x"] * plan.count
        parts = [f"part{index}" for index in range(plan.count)]
        if plan.begin == "split":
            self.weights["sizes"] = np.array([_PART] * plan.count)
            self.nodes.append(helper.make_node("Split", ["x", "sizes"], parts, axis=1))
            return parts
        for index, part in enumerate(parts):
            ends = {"start": index * _PART, "end": (index + 1) * _PART, "axis": 1}
            self.weights |= {f"{part}.{name}": np.array([value]) for name, value in ends.items()}
            self.nodes.append(helper.make_node("Slice", ["x", *(f"{part}.{name}" for name in ends)], [part]))
        return parts

    def _branch(self, index: int, value: str) -> str:
        plan, into = self.plan, _PART if self.plan.begin != "shared" else self.plan.count * _PART
        layers = [*plan.layers, *(["end"] if plan.end != "concat" else [])]
        for position, layer in enumerate(layers):
            name = f"branch.{index}.layer{position}"
            odd = bool(plan.odd) and index == 1 and position == 0
            if layer in ("conv", "end"):
                out = plan.count * _PART if layer == "end" else _PART
                value, into = self._conv(name, value, out, into, index=index, end=layer == "end", odd=odd), out
            elif layer == "norm":
                self.weights |= batch_norm(self.random, into, name)
                self.nodes.append(batch_norm_node(value, f"{name}.out", name))
                value = f"{name}.out"
            else:
                self.nodes.append(helper.make_node({"relu": "Relu", "tanh": "Tanh"}[layer], [value], [f"{name}.out"]))
                value = f"{name}.out"
        return value

    def _conv(self, name: str, value: str, out: int, into: int, *, index: int, end: bool, odd: bool) -> str:
        plan = self.plan
        kernel = 1 if end else plan.kernel
        shape = (out, into, kernel, kernel)
        self.weights[f"{name}.w"] = (self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("float32")
        inputs = [value, f"{name}.w"]
        if plan.bias[index]:
            self.weights[f"{name}.b"] = self.random.standard_normal(out).astype("float32")
            inputs.append(f"{name}.b")
        stride = 1 if end else plan.stride
        pads = [kernel // 2] * 4 if not (odd and plan.odd == "pads") else [kernel // 2 + 1] * 2 + [kernel // 2 - 1] * 2
        if odd and plan.odd == "shared weight":
            inputs[1] = "branch.0.layer0.w"
            del self.weights[f"{name}.w"]
        self.nodes.append(
            helper.make_node("Conv", inputs, [f"{name}.out"], name=name, strides=[stride, stride], pads=pads)
        )
        if odd and plan.odd == "read twice":
            self.nodes.append(helper.make_node("Sigmoid", [f"{name}.out"], ["besides"]))
        return f"{name}.out"


def _merged(model: ir.Model) -> ir.Model:
    return fuse(model, passes=[MergeBranches]).model


@st.composite
def _plans(draw: st.DrawFn) -> _Plan:
    begin = draw(st.sampled_from(["shared", "split", "slice"]))
    layers = draw(st.lists(st.sampled_from(["conv", "relu", "norm", "tanh"]), max_size=3))
    return _Plan(
        count=draw(st.integers(2, 4)),
        begin=begin,
        layers=("conv", *layers),
        end=draw(st.sampled_from(["concat", "sum", "sum and rest"])),
        kernel=draw(st.sampled_from([1, 3])),
        stride=draw(st.sampled_from([1, 2])),
        bias=tuple(draw(st.lists(st.booleans(), min_size=4, max_size=4))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.slow
@settings(max_examples=50)
@given(_plans())
def test_equal_branches_become_one_and_compute_the_same(plan: _Plan) -> None:
    assume(plan.end != "sum and rest" or plan.stride == 1)  # else the shortcut would have another size
    model = _Builder(plan).build()
    merged = _merged(model)
    verify_equal(model, merged)
    counted = ops(merged)
    assert counted["Conv"] == plan.layers.count("conv") + (plan.end != "concat")
    assert counted["BatchNormalization"] == plan.layers.count("norm")
    assert counted["Relu"] == plan.layers.count("relu")
    assert counted["Concat"] == counted["Split"] == counted["Slice"] == 0
    assert counted["Add"] == (plan.end == "sum and rest")


@pytest.mark.parametrize("begin", ["shared", "split"])
@pytest.mark.parametrize("end", ["concat", "sum"])
@pytest.mark.parametrize("odd", ["pads", "read twice"])
def test_a_branch_that_is_different_leaves_all_as_it_was(begin: str, end: str, odd: str) -> None:
    model = _Builder(_Plan(begin=begin, end=end, odd=odd)).build()
    assert ops(_merged(model)) == ops(fuse(model, passes=[]).model)


@pytest.mark.parametrize("end", ["concat", "sum"])
def test_a_shared_weight_is_refused_with_a_reason(end: str) -> None:
    model = _Builder(_Plan(end=end, odd="shared weight")).build()
    (report,) = fuse(model, passes=[MergeBranches]).reports
    assert report.changed == 0
    (refusal,) = report.refusals
    assert refusal.why.startswith("in the branch with branch.0.layer0, its convolution's weight")
    assert "is shared with 1 other place" in refusal.why


def test_the_channels_of_another_order_are_not_a_whole() -> None:
    model = _Builder(_Plan(begin="split")).build()
    split = next(node for node in model.graph if node.op_type == "Split")
    first, second = (value.consumers()[0] for value in split.outputs[:2])
    first.replace_input_with(0, split.outputs[1])
    second.replace_input_with(0, split.outputs[0])
    merged = _merged(model)
    assert ops(merged)["Conv"] == ops(model)["Conv"]
    verify_equal(model, merged)


@pytest.mark.parametrize("missing", ["part2.end", "part0.start", "part1.start"])
def test_slices_that_leave_channels_out_are_not_a_whole(missing: str) -> None:
    builder = _Builder(_Plan(begin="slice", count=3))
    model = builder.build()
    value = model.graph.initializers[missing]
    array = value.const_value.numpy()
    shifted = array - 1 if missing.endswith("end") else array + 1
    value.const_value = ir.tensor(shifted, name=missing)
    assert ops(_merged(model))["Conv"] == ops(model)["Conv"]


@pytest.mark.slow
def test_a_projection_and_a_residual_are_no_branches() -> None:
    model = torchscript_export(trained_like(models.build("resnet[depth=8,stages=3,shortcut=B]")), size=32)
    (report,) = fuse(model, passes=[MergeBranches]).reports
    assert (report.changed, report.refusals) == (0, ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "depth", "cardinality"),
    [("torchscript", 11, 4), ("dynamo", 11, 2), *deep(("torchscript", 29, 4), ("dynamo", 29, 4))],
)
def test_the_forms_of_resnext_are_the_same_graph(exporter: str, depth: int, cardinality: int) -> None:
    layers = []
    for form in ("a", "b", "c"):
        name = f"resnext[depth={depth},stages=3,cardinality={cardinality},base_width=4,stem_width=16,form={form}]"
        network = trained_like(models.build(name))
        if exporter == "torchscript":
            model = torchscript_export(network, size=32)
            fused = fuse(model).model
            verify_equal(model, fused)
        else:
            fused = export(network, preprocessing=Preprocessing(size=32)).model
        layers.append(_layers(fused))
    assert layers[0] == layers[1] == layers[2]


def _layers(model: ir.Model) -> Counter[tuple[str, int, str]]:
    """Count the layers of each kind: operator, groups, and the shape of the weight."""
    return Counter(
        (node.op_type, node.attributes.get_int("group", 1), str(node.inputs[1].shape) if node.op_type == "Conv" else "")
        for node in model.graph
    )
