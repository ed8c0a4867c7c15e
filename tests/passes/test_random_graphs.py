"""Any convolutional graph comes out of the passes computing what it did.

A hundred graphs are tried by default, and thousands by ``pytest -m deep``, say after a change of a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, seed, settings

from rexport.model_file import to_bytes
from rexport.passes import fuse
from tests._deep import deep
from tests.passes._models import contents
from tests.passes._random_graphs import Case, cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests._products import Products

# float32 rounds by 6e-8 of a number. A folded weight is rounded once more, and sums are added up in another order: of
# up to 12 channels in a window of 27, so 18 roundings of a typical sum, each through the ten layers or so behind it
# that keep the size of numbers. What is subtracted on the way leaves less than the roundings were of, so a difference
# is held against the largest tensor of the graph and not against the output alone.
_ROUNDING = 2e-5


def try_graphs(check: Callable[[Case], object], *, part: int, count: int) -> None:
    """Check ``count`` graphs, others in each part; of one that fails, the smallest that does is shown."""

    @seed(part)
    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(case=cases())
    def look(case: Case) -> None:
        check(case)

    look()


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [(0, 100), *deep(*((part, 1000) for part in range(1, 6)))])
def test_a_fused_graph_computes_the_same(part: int, count: int) -> None:
    try_graphs(assert_fused_is_equal, part=part, count=count)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [(0, 50), *deep(*((part, 1000) for part in range(1, 4)))])
def test_a_fused_graph_has_nothing_more_to_fuse(part: int, count: int) -> None:
    def check(case: Case) -> None:
        fused = fuse(case.model).model
        again = fuse(fused)
        assert {report.name: report.changed for report in again.reports if report.changed} == {}
        assert contents(again.model) == contents(fused)

    try_graphs(check, part=part, count=count)


def assert_fused_is_equal(case: Case) -> None:
    model = case.model
    before = to_bytes(model)
    result = fuse(model)
    assert to_bytes(model) == before
    assert_equal(case, result.model)


def assert_equal(case: Case, model: ir.Model) -> None:
    fused = onnx.load_from_string(to_bytes(model))
    onnx.checker.check_model(fused, full_check=True)
    # what is listed as an input and has a value in the file is a constant from now on
    constant = {tensor.name for tensor in case.proto.graph.initializer} - {value.name for value in fused.graph.input}
    assert interface(fused) == [pair for pair in interface(case.proto) if pair[0] not in constant]
    defaults = {name: array for name, array in case.feeds.items() if name not in constant}
    expected, scale = reference(case.proto, defaults)
    for value, wanted, found in zip(fused.graph.output, expected, run(fused, defaults), strict=True):
        assert found.shape == wanted.shape, value.name
        assert np.abs(found - wanted).max() <= _ROUNDING * scale, value.name


def interface(proto: onnx.ModelProto) -> list[tuple[str, int]]:
    return [(value.name, value.type.tensor_type.elem_type) for value in (*proto.graph.input, *proto.graph.output)]


def reference(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Return the outputs of a model, and the largest number in any of its tensors (some are padded with infinity)."""
    onnx.checker.check_model(proto, full_check=True)
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    outputs = {value.name for value in proto.graph.output}
    inferred = onnx.shape_inference.infer_shapes(proto).graph.value_info
    floats = {value.name: value for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    watched.graph.output.extend(value for name, value in floats.items() if name not in outputs)
    results = run(watched, feeds)
    return results[: len(outputs)], max(float(np.abs(a).max(initial=0.0, where=np.isfinite(a))) for a in results)


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model as it is, without the optimizations of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # copies, because ONNX Runtime updates the statistics of a BatchNormalization in training mode where they are
    results: list[np.ndarray] = session.run(None, {name: array.copy() for name, array in feeds.items()})
    return results


# the oracle


def scaled(node: ir.Node, index: int, factor: float) -> bool:
    """Change a constant of a node by a factor, for this node alone."""
    old = node.inputs[index] if len(node.inputs) > index else None
    if old is None or old.const_value is None or not old.const_value.numpy().any():
        return False
    array = old.const_value.numpy() * np.float32(factor)
    new = ir.Value(name=f"{old.name}_wrong", const_value=ir.tensor(array, name=f"{old.name}_wrong"))
    node.graph.register_initializer(new)
    node.replace_input_with(index, new)
    return True


def wrong_weight(node: ir.Node) -> bool:
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and scaled(node, 1, 1.01)


def wrong_bias(node: ir.Node) -> bool:
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and scaled(node, 2, 1.01)


def wrong_statistics(node: ir.Node) -> bool:
    return node.op_type == "BatchNormalization" and scaled(node, 4, 1.01)


def moved_padding(node: ir.Node) -> bool:
    pads = list(node.attributes.get_ints("pads", [])) if node.op_type == "Conv" else []
    if not pads or not pads[0]:
        return False
    half = len(pads) // 2
    pads[0], pads[half] = pads[0] - 1, pads[half] + 1  # the same size comes out
    node.attributes.add(ir.AttrInt64s("pads", pads))
    return True


def lost_rectifier(node: ir.Node) -> bool:
    if node.op_type != "Relu" or node.outputs[0].is_graph_output():
        return False
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    return True


@pytest.fixture
def fused_graphs(products: Products) -> list[tuple[Case, ir.Model]]:
    """Graphs at random, and what the passes made of them."""

    def make() -> list[tuple[Case, bytes]]:
        graphs: list[tuple[Case, bytes]] = []
        # Hypothesis varies what it drew before, so that a fault hides in many of a part's graphs, or in few
        try_graphs(lambda case: graphs.append((case, to_bytes(fuse(case.model).model))), part=3, count=100)
        return graphs

    graphs = products.value("random graphs", make=make)
    return [(case, ir.from_proto(onnx.load_from_string(fused))) for case, fused in graphs]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [wrong_weight, wrong_bias, wrong_statistics, moved_padding, lost_rectifier])
def test_a_fault_is_seen(fault: Callable[[ir.Node], bool], fused_graphs: list[tuple[Case, ir.Model]]) -> None:
    """Of the graphs in which the last such node goes wrong, most give it away; a rectifier may hide it in some."""
    seen: list[bool] = []
    for case, model in fused_graphs:
        if any(fault(node) for node in reversed(model.graph)):
            try:
                assert_equal(case, model)
            except AssertionError:
                seen.append(True)
            else:
                seen.append(False)
    assert len(seen) > 10
    assert sum(seen) >= 0.8 * len(seen)
