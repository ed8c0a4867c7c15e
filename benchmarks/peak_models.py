"""Models that do little but multiply, to find out how fast a runtime can: equal layers in a row.

    MACs per call = images · side² · (16 · C + n · k² · C² + C · 16)     n convolutions k × k of C channels
                  = images · n · C²                                     n matrix products C × C

Convolutions have a 1×1 convolution at either end, from and to 16 channels, so that converting inputs and outputs costs
little. Integers are stored as rexport's targets store them: activations uint8, or int8 on ARM, and weights int8 per
output channel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rexport._cpu import this_cpu

__all__ = ["Kind", "Load", "PeakPrecision"]

_OPSET = 17
_ENDS = 16
_SCALE = 0.02  # of every tensor of integers, which speed does not depend on


class Kind(StrEnum):
    """What is multiplied."""

    CONVOLUTION = "convolution"
    MATRIX_PRODUCT = "matrix product"


class PeakPrecision(StrEnum):
    """What numbers are multiplied."""

    INT8 = "int8"
    FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Load:
    """Equal layers in a row.

    Attributes:
        kind: Convolutions, or matrix products.
        channels: That each reads and writes.
        kernel: Height and width of a convolution's kernel.
        side: Height and width of its pictures; 1 for matrix products.
        layers: How many.
        images: Pictures a call, or rows of the matrix.
    """

    kind: Kind
    channels: int
    kernel: int = 1
    side: int = 1
    layers: int = 6
    images: int = 8

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its input, float32."""
        return (self.images, self._ends, self.side, self.side)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        each = self.layers * self.kernel**2 * self.channels**2
        ends = 2 * _ENDS * self.channels if self.kind is Kind.CONVOLUTION else 0
        return self.images * self.side**2 * (each + ends)

    @property
    def _ends(self) -> int:
        return _ENDS if self.kind is Kind.CONVOLUTION else self.channels

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        if self.kind is Kind.MATRIX_PRODUCT:
            return f"{self.images} × {self.channels} times {self.channels} × {self.channels}"
        kernel, side = f"{self.kernel}×{self.kernel}", f"{self.side}×{self.side}"
        return f"{self.layers} of {kernel}, {self.channels} channels of {side}, {self.images} pictures"

    def to_model(self, precision: PeakPrecision, *, seed: int = 0) -> bytes:
        """Return the serialized model."""
        chain = _Chain(precision, np.random.default_rng(seed))
        result = chain.start(flat=self.kind is Kind.MATRIX_PRODUCT)
        if self.kind is Kind.MATRIX_PRODUCT:
            for index in range(self.layers):
                result = chain.layer("Gemm", result, (self.channels, self.channels), f"layer{index}", transB=1)
        else:
            widths = [_ENDS, *[self.channels] * (self.layers + 1), _ENDS]
            for index, (read, written) in enumerate(pairwise(widths)):
                inside = 0 < index <= self.layers
                side = self.kernel if inside else 1
                shape = (written, read, side, side)
                result = chain.layer("Conv", result, shape, f"layer{index}", pads=[side // 2] * 4)
        return chain.end(result, self.shape)


class _Chain:
    """A graph under construction: layers in a row, of floats or behind Q/DQ."""

    def __init__(self, precision: PeakPrecision, random: np.random.Generator) -> None:
        self._int8 = precision is PeakPrecision.INT8
        self._random = random
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def start(self, *, flat: bool) -> str:
        """Return the tensor that the first layer reads: the images, or as rows, which the integers are made of."""
        read = self._node("Flatten", ["images"], "rows") if flat else "images"
        if not self._int8:
            return read
        arm = this_cpu().architecture in ("aarch64", "arm64", "ARM64")
        self._constant("scale", np.asarray(_SCALE, np.float32))
        self._constant("zero_point", np.asarray(-128 if arm else 0, np.int8 if arm else np.uint8))
        return self._requantized(read)

    def layer(self, op_type: str, read: str, shape: tuple[int, ...], name: str, **attributes: Any) -> str:
        """Add a layer whose weight has a shape, its result clipped at zero as by a ReLU."""
        if self._int8:
            weight = self._integers(f"{name}.weight", self._random.integers(-60, 60, shape), "int8", _SCALE)
            bias = self._integers(f"{name}.bias", np.zeros(shape[0]), "int32", float(np.float32(_SCALE) ** 2))
            return self._requantized(self._node(op_type, [read, weight, bias], name, **attributes))
        spread = np.sqrt(2 / np.prod(shape[1:]))  # keeps numbers about as large as they are: no denormals
        weight = self._constant(f"{name}.weight", (spread * self._random.standard_normal(shape)).astype(np.float32))
        bias = self._constant(f"{name}.bias", np.zeros(shape[0], np.float32))
        return self._node("Relu", [self._node(op_type, [read, weight, bias], name, **attributes)], f"{name}_relu")

    def end(self, result: str, shape: tuple[int, ...]) -> bytes:
        graph = helper.make_graph(
            self._nodes,
            "peak",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self._tensors,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset], ir_version=8))
        serialized: bytes = model.SerializeToString()
        return serialized

    def _requantized(self, tensor: str) -> str:
        integers = self._node("QuantizeLinear", [tensor, "scale", "zero_point"], f"{tensor}_quantized")
        return self._node("DequantizeLinear", [integers, "scale", "zero_point"], f"{tensor}_dequantized")

    def _integers(self, name: str, values: np.ndarray, dtype: str, scale: float) -> str:
        """Store integers with a scale per output channel, and return them dequantized."""
        scales = self._constant(f"{name}_scale", np.full(len(values), scale, np.float32))
        zero_points = self._constant(f"{name}_zero_point", np.zeros(len(values), dtype))
        stored = self._constant(f"{name}_quantized", values.astype(dtype))
        return self._node("DequantizeLinear", [stored, scales, zero_points], name, axis=0)

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name
