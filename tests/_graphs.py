"""Small ONNX models written by hand, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def graph(
    body: str,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    inputs: str = "float[N, 3, 16, 16] x",
    outputs: str = "float[N, C, H, W] y",
    opset: int = 17,
) -> ir.Model:
    """Return the model of some nodes in ONNX's text form, with the types of its tensors."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def named(model: ir.Model) -> ir.Model:
    """Call the nodes of a model as their first results, and return it."""
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def set_array(value: ir.Value, array: np.ndarray) -> None:
    """Give a constant other numbers."""
    value.const_value = ir.tensor(array, name=value.name)


def convolution(out: int, into: int, side: int = 3, *, seed: int = 0) -> np.ndarray:
    """Return a convolution's weight that keeps the size of numbers about as it is."""
    random = np.random.default_rng((seed, out, into, side))
    return (random.standard_normal((out, into, side, side)) / np.sqrt(into * side * side)).astype(np.float32)


def vector(size: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, size)).standard_normal(size).astype(np.float32)


def images(count: int, size: int = 16, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, size)).standard_normal((count, 3, size, size)).astype(np.float32)


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    """Run a model in a plain session of ONNX Runtime."""
    session = _session(ir.to_proto(model))
    return list(session.run(None, {session.get_inputs()[0].name: x}))


def run_exposed(model: ir.Model, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """Run a model all of whose tensors are outputs, and return those called ``names``."""
    proto = ir.to_proto(model)
    given = {value.name for value in [*proto.graph.output, *proto.graph.input]}
    for node in proto.graph.node:
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in given)
    session = _session(proto)
    computed = [name for name in names if name != session.get_inputs()[0].name]
    found = dict(zip(computed, session.run(computed, {session.get_inputs()[0].name: x}), strict=True))
    return [found.get(name, x) for name in names]


def _session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # processors without VNNI otherwise add pairs of products in 16 bits, which saturate: the numbers would be others
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
