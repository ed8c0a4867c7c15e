"""Models that do little but multiply, to find out how fast a runtime can: equal layers in a row.

    MACs per call = images · side² · (16 · C + n · k² · C² + C · 16)     n convolutions k × k of C channels
                  = images · n · C²                                     n matrix products C × C

Convolutions have a 1×1 convolution at either end, from and to 16 channels, so that converting inputs and outputs costs
little. Integers are stored as rexport's targets store them: activations uint8, or int8 on ARM, and weights int8 per
output channel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rexport._cpu import this_cpu
from rexport.benchmarks.document import Kind, PeakPrecision
from rexport.benchmarks.layer_graph import SCALE, LayerGraph

__all__ = ["Load"]

_ENDS = 16


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
        return (self.images, self._layers[0][0], self.side, self.side)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return self.images * self.side**2 * sum(read * written * kernel**2 for read, written, kernel in self._layers)

    @property
    def _layers(self) -> list[tuple[int, int, int]]:
        """Of each layer, the channels that it reads and writes, and the height and width of its kernel."""
        equal = [(self.channels, self.channels, self.kernel)] * self.layers
        if self.kind is Kind.MATRIX_PRODUCT:
            return equal
        return [(_ENDS, self.channels, 1), *equal, (self.channels, _ENDS, 1)]

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
        for index, (read, written, kernel) in enumerate(self._layers):
            name = f"layer{index}"
            if self.kind is Kind.MATRIX_PRODUCT:
                result = chain.layer("Gemm", result, (written, read), name, transB=1)
            else:
                result = chain.layer("Conv", result, (written, read, kernel, kernel), name, pads=[kernel // 2] * 4)
        serialized: bytes = chain.model("peak", result, self.shape).SerializeToString()
        return serialized


class _Chain(LayerGraph):
    """A graph under construction: layers in a row, of floats or behind Q/DQ."""

    def __init__(self, precision: PeakPrecision, random: np.random.Generator) -> None:
        super().__init__()
        self._int8 = precision is PeakPrecision.INT8
        self._random = random

    def start(self, *, flat: bool) -> str:
        """Return the tensor that the first layer reads: the images, or as rows, which the integers are made of."""
        read = self.node("Flatten", ["images"], "rows") if flat else "images"
        if not self._int8:
            return read
        arm = this_cpu().architecture in ("aarch64", "arm64", "ARM64")
        self.set_activations(np.asarray(-128, np.int8) if arm else np.asarray(0, np.uint8))
        return self.requantized(read)

    def layer(self, op_type: str, read: str, shape: tuple[int, ...], name: str, **attributes: Any) -> str:
        """Add a layer whose weight has a shape, its result clipped at zero as by a ReLU."""
        if self._int8:
            weight = self.integers(f"{name}.weight", self._random.integers(-60, 60, shape), "int8", SCALE)
            bias = self.integers(f"{name}.bias", np.zeros(shape[0]), "int32", float(np.float32(SCALE) ** 2))
            return self.requantized(self.node(op_type, [read, weight, bias], name, **attributes))
        spread = np.sqrt(2 / np.prod(shape[1:]))  # keeps numbers about as large as they are: no denormals
        weight = self.constant(f"{name}.weight", (spread * self._random.standard_normal(shape)).astype(np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(shape[0], np.float32))
        return self.node("Relu", [self.node(op_type, [read, weight, bias], name, **attributes)], f"{name}_relu")
