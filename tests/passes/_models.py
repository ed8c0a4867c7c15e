"""Small models, and how to compare what they compute."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rexport.model_file import to_bytes
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rexport.passes import GraphPass, PassReport

# A folded weight is rounded once, by 6e-8 of itself, and so is each product and sum of a convolution. The sums here
# have at most 27 · 4 terms that partly cancel, so a hundred roundings of the largest result are more than enough.
ROUNDING = 1e-5
MAY_CHANGE = "is a graph input, so a caller may change it"


def parse(text: str) -> ir.Model:
    """Return the model that a text in ONNX's own syntax describes."""
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


def make(
    nodes: Sequence[onnx.NodeProto],
    initializers: Mapping[str, np.ndarray],
    *,
    x: Sequence[int | str],
    y: Sequence[int | str | None],
    opset: int = 18,
    ir_version: int = 9,
    inputs: Sequence[str] = (),
) -> ir.Model:
    """Return a model from ``x`` to ``y``; the initializers in ``inputs`` are inputs too."""
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    dtype = next((t.data_type for t in tensors if t.data_type == TensorProto.FLOAT16), TensorProto.FLOAT)
    extra = [helper.make_tensor_value_info(n, dtype, initializers[n].shape) for n in inputs]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, x), *extra],
        [helper.make_tensor_value_info("y", dtype, y)],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


def batch_norm(rng: np.random.Generator, channels: int, prefix: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Return the four parameters of a BatchNormalization, as a trained network has them."""
    parameters = {
        "scale": rng.uniform(0.3, 1.5, channels) * rng.choice([-1, 1], channels),
        "bias": rng.normal(0, 0.5, channels),
        "mean": rng.normal(0, 0.5, channels),
        "var": rng.uniform(0.05, 2, channels),
    }
    return {f"{prefix}.{name}": array.astype(dtype) for name, array in parameters.items()}


def batch_norm_node(source: str, result: str, prefix: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(
        "BatchNormalization",
        [source, *(f"{prefix}.{name}" for name in ("scale", "bias", "mean", "var"))],
        [result],
        name=prefix,
        **attributes,
    )


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """The choices of a convolution, in one, two or three dimensions."""

    dimensions: int
    groups: int
    inputs: int  # of each group
    outputs: int  # of each group
    kernel: int
    stride: int
    padding: int
    dilation: int
    bias: bool

    def weights(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = (self.groups * self.outputs, self.inputs, *[self.kernel] * self.dimensions)
        weights = {"w": rng.standard_normal(shape).astype(np.float32)}
        if self.bias:
            weights["b"] = rng.standard_normal(shape[0]).astype(np.float32)
        return weights

    def node(self, source: str, result: str) -> onnx.NodeProto:
        return helper.make_node(
            "Conv",
            [source, "w", *(["b"] if self.bias else [])],
            [result],
            name="conv",
            group=self.groups,
            strides=[self.stride] * self.dimensions,
            pads=[self.padding] * 2 * self.dimensions,
            dilations=[self.dilation] * self.dimensions,
        )

    @property
    def picture(self) -> list[int | str]:
        return ["N", self.groups * self.inputs, *[7] * self.dimensions]

    @property
    def result(self) -> list[int | str | None]:
        return ["N", self.groups * self.outputs, *[None] * self.dimensions]


def convolutions(padding: st.SearchStrategy[int]) -> st.SearchStrategy[Convolution]:
    return st.builds(
        Convolution,
        dimensions=st.integers(1, 3),
        groups=st.integers(1, 4),
        inputs=st.integers(1, 4),
        outputs=st.integers(1, 3),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 2),
        padding=padding,
        dilation=st.integers(1, 2),
        bias=st.booleans(),
    )


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def contents(model: ir.Model) -> list[bytes]:
    """Return the nodes of a model in their order, and its weights in that of their names."""
    graph = onnx.load_from_string(to_bytes(model)).graph
    weights = sorted(graph.initializer, key=lambda tensor: tensor.name)
    return [part.SerializeToString() for part in (*graph.node, *weights)]


def run(model: ir.Model, feeds: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> list[np.ndarray]:
    """Run the model in ONNX Runtime; its picture ``x`` is standard normal unless it is in ``feeds``."""
    onnx.checker.check_model(to_bytes(model), full_check=True)
    picture = model.graph.inputs[0]
    shape = [size if isinstance(size, int) else 2 for size in picture.shape]
    x = np.random.default_rng(seed).standard_normal(shape).astype(picture.dtype.numpy())
    results: list[np.ndarray] = open_session(to_bytes(model), threads=1).run(None, {"x": x} | dict(feeds or {}))
    return results


def changed_by(one_pass: type[GraphPass], model: ir.Model) -> tuple[ir.Model, PassReport]:
    """Run one pass on a copy of the model; what it removed must not count as a reader of any value."""
    clone = model.clone()
    report = one_pass()(clone).report
    present = set(clone.graph.all_nodes())
    values = {value for node in present for value in (*node.inputs, *node.outputs) if value is not None}
    assert {use.node for value in values for use in value.uses()} <= present
    return clone, report


def refusal(one_pass: type[GraphPass], model: ir.Model) -> str:
    """Return the only refusal of a pass, which must have left the model as it was."""
    before = to_bytes(model)
    same, report = changed_by(one_pass, model)
    assert to_bytes(same) == before
    assert report.changed == 0
    (only,) = report.refusals
    return only.why


def rewritten(
    one_pass: type[GraphPass],
    original: ir.Model,
    operators: Mapping[str, int] | None = None,
    *,
    changed: int = 1,
    of_scale: float = ROUNDING,
) -> ir.Model:
    """Return what a pass makes of a model by so many changes and no refusal: equal results, and these operators."""
    model, report = changed_by(one_pass, original)
    assert (report.changed, report.refusals) == (changed, ())
    assert operators is None or ops(model) == operators
    assert_close(run(model), run(original), of_scale=of_scale)
    return model


def assert_untouched(one_pass: type[GraphPass], original: ir.Model) -> None:
    """Check that a pass finds nothing in the model to change or to refuse."""
    same, report = changed_by(one_pass, original)
    assert (report.changed, report.refusals) == (0, ())
    assert to_bytes(same) == to_bytes(original)


def assert_close(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], *, of_scale: float = ROUNDING) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert np.abs(a - e).max() <= of_scale * np.abs(e).max()
