"""A layer as it was profiled, and what of the file its cost depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Convolution", "ProfiledLayer"]


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """What a convolution is: its channels, the groups both are in, the kernel's height and width, and the strides."""

    inputs: int
    outputs: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved by itself."""
        return 1 < self.groups == self.inputs


@dataclass(frozen=True, kw_only=True)
class ProfiledLayer:
    """What a runtime executes at a time.

    Attributes:
        name: Of the node that it computes, or what it is where there is none.
        op_type: The operator of ONNX; ``layout change`` for a tensor reordered in memory.
        kernel: What the runtime calls it.
        precision: Of what it really reads: ``int8``, ``float32`` …
        nodes: The names of the nodes that are known to be in it.
        macs: Multiply-accumulates per picture; ``None`` where it does not multiply or they are unknown.
        seconds: Of one call.
        share: Of the seconds of all layers.
        weights: Numbers in its weight; 0 where it has none.
        convolution: What it is, if it is one.
        advice: What may be done about it, in a sentence.
    """

    name: str
    op_type: str
    kernel: str
    precision: str
    nodes: tuple[str, ...]
    macs: int | None
    seconds: float
    share: float
    weights: int = 0
    convolution: Convolution | None = None
    advice: str | None = None

    def gmacs_per_second(self, batch: int) -> float | None:
        """Return its speed for so many pictures a call, in 10⁹ multiply-accumulates per second."""
        return self.macs * batch / self.seconds / 1e9 if self.macs and self.seconds else None

    def to_json(self, batch: int) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "name": self.name,
            "op_type": self.op_type,
            "kernel": self.kernel,
            "precision": self.precision,
            "nodes": list(self.nodes),
            "macs": self.macs,
            "seconds": self.seconds,
            "share": self.share,
            "gmacs_per_second": self.gmacs_per_second(batch),
            "advice": self.advice,
        }
