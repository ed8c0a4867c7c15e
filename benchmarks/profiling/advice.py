"""What may be done about the layers that cost most. Each rule is a function: a layer and its conditions in, advice out.

A rule speaks only where there is something to gain: of layers that have more than a small share of the time, and of
those that are slower than the model's fastest by far. The numbers that decide stand at the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks.profiling.profiled import ProfiledLayer

__all__ = ["RULES", "Conditions", "advise", "remarks"]

_WORTH = 0.02  # of the time: less is not worth advice
_CONVERSION = 0.03
_SLOW = 0.5  # of the GMAC/s of the fastest layer of that precision
_USES = 64  # multiplications with each weight per call, below which reading the weights takes the time
_FLOATS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a layer is judged by.

    Attributes:
        runtime: ``cpu`` or ``openvino``.
        batch: Pictures per call.
        is_int8: Whether most of the model's multiply-accumulates are of integers.
        fastest: The GMAC/s of its fastest layer with a notable share of the time; ``None`` where none multiplies.
    """

    runtime: str
    batch: int
    is_int8: bool
    fastest: float | None

    @classmethod
    def of(cls, layers: Sequence[ProfiledLayer], *, runtime: str, batch: int) -> Conditions:
        """Return the conditions of a profile."""
        macs = {
            kind: sum(layer.macs or 0 for layer in layers if layer.precision == kind) for kind in ("int8", *_FLOATS)
        }
        speeds = [layer.gmacs_per_second or 0.0 for layer in layers if layer.share >= _WORTH / 2]
        return cls(
            runtime=runtime,
            batch=batch,
            is_int8=macs["int8"] > sum(macs.values()) / 2,
            fastest=max(speeds, default=0.0) or None,
        )

    def is_slow(self, layer: ProfiledLayer) -> bool:
        """Say whether a layer multiplies at less than half the speed of the fastest."""
        speed = layer.gmacs_per_second
        return speed is not None and self.fastest is not None and speed < _SLOW * self.fastest


def advise(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """Return the advice of the first rule that applies, or ``None``."""
    return next((advice for rule in RULES if (advice := rule(layer, conditions)) is not None), None)


def float_island(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """A layer that multiplies floats in a model of integers, whatever its share: nobody may have noticed."""
    if not (conditions.is_int8 and layer.macs and layer.precision in _FLOATS):
        return None
    return (
        f"It computes in {layer.precision} in an INT8 model; `rexport inspect FILE` says why. `rexport quantize` "
        "quantizes it unless it was told not to."
    )


def conversion(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """Converting between floats and integers takes a notable share."""
    if layer.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast") or layer.share < _CONVERSION:
        return None
    if layer.op_type == "QuantizeLinear" and conditions.is_int8:
        return (
            "It quantizes floats; export with `--raw-image` if these are the input pictures, or quantize the float "
            "layer before it."
        )
    return "It converts between floats and integers; quantize the float layer beside it too."


def layout_change(layer: ProfiledLayer, conditions: Conditions) -> str | None:  # noqa: ARG001
    """The runtime reorders a tensor in memory."""
    if layer.op_type != "layout change" or layer.share < _CONVERSION:
        return None
    return (
        "The runtime reorders a tensor in memory here; raw images (`rexport onnx --raw-image`) avoid that at the "
        "input, and quantizing float layers between INT8 layers avoids it elsewhere."
    )


def depthwise(layer: ProfiledLayer, conditions: Conditions) -> str | None:  # noqa: ARG001
    """Every channel by itself: bound by memory."""
    if layer.convolution is None or not layer.convolution.is_depthwise or layer.share < _WORTH:
        return None
    return "A depthwise convolution does little arithmetic per byte, so memory limits it and not the processor."


def grouped(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """A grouped integer convolution on ONNX Runtime, which calls a small matrix product for each group."""
    convolution = layer.convolution
    if convolution is None or convolution.groups == 1 or convolution.is_depthwise:
        return None
    if conditions.runtime != "cpu" or layer.precision != "int8":  # elsewhere merging gains nothing
        return None
    if layer.share < _WORTH or not conditions.is_slow(layer):
        return None
    return (
        f"Its {convolution.groups} groups are computed one by one; `rexport fuse FILE --regroup measure` merges groups "
        "as far as that is faster, without changing the results."
    )


def stem(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """A first convolution of stride 2 over 3 or 4 channels, which fill no vector of the processor."""
    convolution = layer.convolution
    if convolution is None or convolution.inputs > 4 or set(convolution.strides) != {2}:
        return None
    if layer.share < _WORTH or not conditions.is_slow(layer):
        return None
    return (
        f"Its {convolution.inputs} channels are too few for the processor's vectors; `rexport fuse FILE --stem "
        "measure` lets it read 2 × 2 blocks of pixels as channels if that is faster."
    )


def memory_bound(layer: ProfiledLayer, conditions: Conditions) -> str | None:
    """A slow layer that multiplies with each of its weights only a few times per call."""
    if not layer.weights or not layer.macs or layer.share < _WORTH or not conditions.is_slow(layer):
        return None
    uses = layer.macs * conditions.batch / layer.weights
    if uses >= _USES:
        return None
    return (
        f"It multiplies with each weight {uses:.0f} × per call, so reading the weights limits it; larger batches read "
        "them once for all pictures."
    )


RULES = (float_island, conversion, layout_change, depthwise, grouped, stem, memory_bound)


def remarks(layers: Sequence[ProfiledLayer], conditions: Conditions) -> tuple[str, ...]:
    """Return what is to be said of a model as a whole, in sentences."""
    return tuple(
        remark
        for remark in (
            _in_float(layers, conditions),
            _in_all(layers, ("layout change",), "Changing the layout of tensors"),
            _in_all(layers, ("QuantizeLinear", "DequantizeLinear", "Cast"), "Converting between floats and integers"),
        )
        if remark is not None
    )


def _in_float(layers: Sequence[ProfiledLayer], conditions: Conditions) -> str | None:
    if conditions.is_int8 or not any(layer.macs for layer in layers):
        return None
    return "The model computes in float; `rexport quantize FILE --data IMAGES` quantizes it."


def _in_all(layers: Sequence[ProfiledLayer], op_types: tuple[str, ...], activity: str) -> str | None:
    shares = [layer.share for layer in layers if layer.op_type in op_types]
    share = math.fsum(shares)
    if share < _CONVERSION:
        return None
    return f"{activity} takes {100 * share:.0f} % of the time, in {counted(len(shares), 'place')}."
