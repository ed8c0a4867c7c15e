"""The passes in their order, on files that rexport did not write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

from rexport._errors import VerificationError
from rexport.model_file import to_bytes
from rexport.passes import (
    DEFAULT_PASSES,
    FuseConvBatchNorm,
    GraphPass,
    PassResult,
    Reference,
    RemoveIdentity,
    fuse,
    verify_equal,
)
from tests._deep import deep
from tests._networks import torchscript_export, trained_like
from tests.passes._models import batch_norm, batch_norm_node, contents, make, ops, parse

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Functional(nn.Module):
    """What the older exporter makes of functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, groups=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        x = F.dropout(x.mean((2, 3)), training=self.training)
        return self.fc(x.view(x.size(0), -1))


def torchvision_network(name: str) -> Callable[[Any], nn.Module]:
    return lambda torchvision: getattr(torchvision.models, name)()


def timm_network(name: str) -> Callable[[Any], nn.Module]:
    return lambda _: pytest.importorskip("timm").create_model(name)


# network, the operators that must be there before, those that must be there after
FILES = [
    pytest.param(lambda _: Functional(), 9, {"BatchNormalization": 2, "ReduceMean": 1}, {}, id="functional-9"),
    pytest.param(lambda _: Functional(), 13, {"BatchNormalization": 2}, {}, id="functional-13"),
    # by default these are in test_other_exporters.py
    *deep(
        (torchvision_network("resnet18"), 11, {"BatchNormalization": 20}, {}),
        (torchvision_network("mobilenet_v2"), 13, {"BatchNormalization": 52}, {"Clip": 35}),
        # what is left is the first of each layer, with a ReLU between it and the convolution
        (torchvision_network("densenet121"), 13, {"BatchNormalization": 121}, {"BatchNormalization": 62}),
        (timm_network("seresnet18"), 17, {"BatchNormalization": 20, "ReduceMean": 8}, {}),
    ),
]


@pytest.mark.parametrize(("network", "opset", "before", "after"), FILES)
def test_a_file_of_another_exporter(
    network: Callable[[Any], nn.Module],
    opset: int,
    before: dict[str, int],
    after: dict[str, int],
    request: pytest.FixtureRequest,
) -> None:
    torchvision = request.getfixturevalue("torchvision")
    model = torchscript_export(trained_like(network(torchvision)), size=64, opset=opset)
    model.metadata_props["rexport.network"] = "anything"
    assert before.items() <= ops(model).items()
    original = to_bytes(model)

    result = fuse(model)

    assert to_bytes(model) == original  # the input is left as it was
    fused = result.model
    assert after.items() <= ops(fused).items()
    gone = {"Identity", "Dropout", "ReduceMean", "Shape", "Constant", "BatchNormalization"} - after.keys()
    assert not gone & ops(fused).keys()
    verify_equal(model, fused)
    assert [value.name for value in fused.graph.inputs] == ["pixels"]
    assert [value.name for value in fused.graph.outputs] == ["scores"]
    assert fused.opset_imports == {"": opset}
    assert fused.metadata_props == model.metadata_props

    again = fuse(fused)
    assert [report.changed for report in again.reports] == [0] * len(DEFAULT_PASSES)
    assert contents(again.model) == contents(fused)


def test_reports_are_in_the_order_of_the_passes() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}, float[1] s = {3}>
        { a = Identity(x)  c = Conv(a, w)  y = BatchNormalization(c, s, s, s, s) }""")
    assert [report.name for report in fuse(model).reports] == [one.__name__ for one in DEFAULT_PASSES]
    chosen = fuse(model, passes=(RemoveIdentity, FuseConvBatchNorm)).reports
    assert [(report.name, report.changed) for report in chosen] == [("RemoveIdentity", 1), ("FuseConvBatchNorm", 1)]


def test_constants_of_the_input_model_keep_their_names() -> None:
    model = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[2] x) => (float[2] y)
        { c = Constant<value = float[2] {1, 2}>()  y = Add(x, c) }""")
    before = to_bytes(model)
    fused = fuse(model).model
    assert ops(fused) == {"Add": 1}
    assert to_bytes(model) == before


def test_batch_normalization_on_both_sides_of_a_convolution() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 1, 1)).astype(np.float32)}
    weights |= batch_norm(rng, 3, "before") | batch_norm(rng, 4, "after")
    nodes = [
        batch_norm_node("x", "a", "before"),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        batch_norm_node("b", "y", "after"),
    ]
    model = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 4, 5, 5])
    fused = fuse(model).model
    assert ops(fused) == {"Conv": 1}
    verify_equal(model, fused)


def test_a_batch_normalization_that_one_side_refuses_goes_into_the_other() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 1, 1)).astype(np.float32), "v": rng.standard_normal((2, 4, 1, 1))}
    weights = {name: array.astype(np.float32) for name, array in weights.items()} | batch_norm(rng, 4, "norm")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        batch_norm_node("a", "b", "norm"),
        helper.make_node("Conv", ["b", "v"], ["c"]),
        helper.make_node("ReduceSum", ["a"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    model = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 2, 5, 5])
    result = fuse(model)
    assert ops(result.model) == {"Conv": 2, "ReduceSum": 1, "Add": 1}
    verify_equal(model, result.model)
    changed = {report.name: report.changed for report in result.reports if report.changed}
    assert changed == {"FuseBatchNormConv": 1}
    assert not any(report.refusals for report in result.reports)  # what one pass refused, the other has done


def test_passes_run_again_on_what_those_after_them_made() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((2, 3, 1, 1)).astype(np.float32), **batch_norm(rng, 3, "norm")}
    nodes = [
        batch_norm_node("x", "b", "norm"),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Conv", ["b", "w"], ["d"]),  # the same, so that the BatchNormalization has one reader in truth
        helper.make_node("Mul", ["c", "d"], ["y"]),
    ]
    model = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 2, 5, 5])
    result = fuse(model)
    assert ops(result.model) == {"Conv": 1, "Mul": 1}
    verify_equal(model, result.model)
    assert not any(report.changed for report in fuse(result.model).reports)


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_a_hand_made_model_of_any_opset(opset: int) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)} | batch_norm(rng, 4, "norm")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER"),
        batch_norm_node("a", "b", "norm"),
        helper.make_node("Dropout", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Identity", ["d"], ["y"]),
    ]
    model = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 4, 5, 5], opset=opset)
    fused = fuse(model).model
    assert ops(fused) == {"Conv": 1, "Relu": 1}
    verify_equal(model, fused)


class _Breaks(GraphPass):
    """Changes what the model computes."""

    summary = "one weight becomes another"

    def call(self, model: ir.Model) -> PassResult:
        value = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
        value.const_value = ir.tensor(value.const_value.numpy() + np.float32(0.1), name=value.name)
        return self.result(model, changed=1)


class _Invalid(GraphPass):
    """Leaves a node that reads nothing."""

    summary = "an edge is cut"

    def call(self, model: ir.Model) -> PassResult:
        node = next(node for node in model.graph if node.op_type == "Relu")
        node.replace_input_with(0, None)
        return self.result(model, changed=1)


class _Fails(GraphPass):
    """Changes the model and then fails."""

    summary = "half of the work"

    def call(self, model: ir.Model) -> PassResult:
        _Breaks().call(model)
        raise ValueError("no more ideas\nand a second line")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (_Breaks, "changed the output 'scores': max relative difference .* \\(limit"),
        (_Invalid, "The fused model (is not valid ONNX|does not run)"),
        (_Fails, "^no more ideas$"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, len(DEFAULT_PASSES)])
def test_a_pass_that_is_wrong_is_taken_back_and_named(wrong: type[GraphPass], why: str, position: int) -> None:
    model = torchscript_export(trained_like(Functional()), size=32)
    passes = (*DEFAULT_PASSES[:position], wrong, *DEFAULT_PASSES[position:])
    reference = Reference(model)
    result = fuse(model, passes=passes, reference=reference)
    (taken_back,) = (report for report in result.reports if report.rolled_back is not None)
    assert (taken_back.name, taken_back.changed) == (wrong.__name__, 0)
    assert re.search(why, str(taken_back.rolled_back))
    reference.difference(result.model)
    # all else is as if it had not been there
    assert ops(result.model) == ops(fuse(model).model)


def test_without_a_reference_a_wrong_pass_is_not_seen() -> None:
    model = torchscript_export(trained_like(Functional()), size=32)
    result = fuse(model, passes=[_Breaks])
    assert result.reports[0].rolled_back is None
    with pytest.raises(VerificationError):
        verify_equal(model, result.model)
