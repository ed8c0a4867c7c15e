"""What the layers of a model cost: the records that a profile fills in, and their part of a benchmark's document."""

from __future__ import annotations

from dataclasses import dataclass

from rexport._documents import Count, Finite, Natural  # noqa: TC001 - msgspec reads the fields' types

__all__ = ["Convolution", "LayerProfile", "ProfiledLayer"]


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
        gmacs_per_second: 10⁹ multiply-accumulates per second.
        weights: Numbers in its weight; 0 where it has none.
        convolution: Its geometry, if it is one.
        advice: What may be done about it, in a sentence.
    """

    name: str
    op_type: str = ""
    kernel: str = ""
    precision: str = ""
    nodes: tuple[str, ...] = ()
    macs: Finite | None = None
    seconds: Finite
    share: Finite = 0.0
    gmacs_per_second: Finite | None = None
    weights: Natural = 0
    convolution: Convolution | None = None
    advice: str | None = None


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """What each layer of a model costs.

    Attributes:
        model: Its file.
        runtime: ``cpu`` or ``openvino``.
        batch: Pictures per call.
        threads: That the runtime was given.
        call_seconds: Of a whole call while profiling.
        layers: In the order they run; their shares add up to 1.
        remarks: About the model as a whole, in sentences.
    """

    model: str
    runtime: str
    batch: Count
    threads: Natural = 0
    call_seconds: Finite | None = None
    layers: tuple[ProfiledLayer, ...] = ()
    remarks: tuple[str, ...] = ()
