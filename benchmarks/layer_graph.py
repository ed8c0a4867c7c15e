"""An ONNX graph under construction: layers to be timed, of floats or behind Q/DQ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SCALE", "LayerGraph"]

SCALE = 0.02  # of every tensor of integers, which speed does not depend on
_OPSET = 17


class LayerGraph:
    """Nodes and constants, each named by who adds it; the graph reads ``images``."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, and return its result, which has the same name."""
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """Store an array, and return its name."""
        self._tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def integers(self, name: str, values: np.ndarray, dtype: str, scale: float) -> str:
        """Store integers with a scale per output channel, and return them dequantized."""
        scales = self.constant(f"{name}_scale", np.full(len(values), scale, np.float32))
        zero_points = self.constant(f"{name}_zero_point", np.zeros(len(values), dtype))
        stored = self.constant(f"{name}_quantized", values.astype(dtype))
        return self.node("DequantizeLinear", [stored, scales, zero_points], name, axis=0)

    def set_activations(self, zero_point: np.ndarray) -> None:
        """Say which integers :meth:`requantized` stores: those of the type of their zero point, a scalar."""
        self.constant("scale", np.asarray(SCALE, np.float32))
        self.constant("zero_point", zero_point)

    def requantized(self, tensor: str) -> str:
        """Return a tensor as it is once it was stored as integers."""
        integers = self.node("QuantizeLinear", [tensor, "scale", "zero_point"], f"{tensor}_quantized")
        return self.node("DequantizeLinear", [integers, "scale", "zero_point"], f"{tensor}_dequantized")

    def model(self, name: str, result: str, shape: tuple[str | int, ...]) -> onnx.ModelProto:
        """Return the model that gives ``result`` for float32 images of ``shape``."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self._tensors,
        )
        opset = helper.make_opsetid("", _OPSET)
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset], ir_version=8))
