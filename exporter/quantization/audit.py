"""Whether an INT8 model stores what it was made from: each layer its own weights, each tensor one scale.

A wrong weight in one layer of many hardly shows in what the whole network gives. So the integers q of each weight w,
with a scale s for its channel, are held against the float model of the same layers. Of e = q − clip(w / s), rounding to
the nearest makes a half; rounding for what a layer reads makes 5 at most in trained networks, and was seen to make 28
in one of random weights, whose inputs are nearly dependent. So

    |e| ≤ 64        Σ e² ≤ ½ Σ clip(w / s)² + 4 max(n, 64)        over the n weights of a channel

is allowed (a few weights that are small beside their bias take up much of each other's rounding), and what is wrong
(another layer's weight, another channel's, another sign or scale) is mostly off by more. And whatever reads the
integers of a tensor has to take them for what they were written as.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import VerificationError
from rexport.passes._graph import constant, is_op, name_of
from rexport.quantization.layers import WEIGHTED, output_axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["audit"]

_MOST_STEPS, _NOISE, _ROUNDING, _FEWEST = 64, 0.5, 4.0, 64


def audit(source: ir.Model, quantized: ir.Model) -> None:
    """Compare what an INT8 model stores with the float model that it was made from, layer by layer.

    Args:
        source: The float model, its tensors scaled as those of the INT8 one.
        quantized: The INT8 model, before any of its layers is written in another form.

    Raises:
        VerificationError: A layer or a tensor is not what it should be (a defect of rexport).
    """
    layers = {name_of(node): node for node in source.graph}
    for node in quantized.graph:
        if is_op(node, *WEIGHTED):
            _audit_weight(node, layers.get(name_of(node)))
        elif is_op(node, "DequantizeLinear"):
            _audit_scale(node, layers)


def _audit_weight(node: ir.Node, layer: ir.Node | None) -> None:
    stored = None if node.inputs[1] is None else node.inputs[1].producer()
    if layer is None or layer.op_type != node.op_type or stored is None or not is_op(stored, "DequantizeLinear"):
        return
    weight, integers, scale = constant(layer.inputs[1]), constant(stored.inputs[0]), constant(stored.inputs[1])
    if weight is None or integers is None or scale is None:
        return
    if weight.shape != integers.shape:
        raise VerificationError(_defect(node, f"a weight of shape {integers.shape} instead of {weight.shape}"))
    per_channel = [1] * weight.ndim
    per_channel[output_axis(node)] = -1
    limits = np.iinfo(integers.dtype)
    expected = np.clip(weight.astype(np.float64) / scale.reshape(per_channel), limits.min, limits.max)
    off = integers - expected
    steps = float(np.abs(off).max(initial=0.0))
    axes = tuple(axis for axis, size in enumerate(per_channel) if size == 1)
    each = off.size / max(len(scale), 1)
    allowed = _NOISE * np.square(expected).sum(axis=axes) + _ROUNDING * max(each, _FEWEST)
    if not steps <= _MOST_STEPS or (np.square(off).sum(axis=axes) > allowed).any():
        raise VerificationError(_defect(node, f"a weight that is {steps:.0f} steps from its own"))


def _audit_scale(node: ir.Node, layers: Mapping[str, ir.Node]) -> None:
    quantize: ir.Node | None = node
    while quantize is not None and not is_op(quantize, "QuantizeLinear"):  # what moves integers lies between
        integers = quantize.inputs[0]
        quantize = None if integers is None else integers.producer()
    if quantize is None or name_of(quantize) in layers:  # what makes whole pixels takes them for others on purpose
        return
    for index in (1, 2):
        here, there = (constant(one.inputs[index]) if len(one.inputs) > index else None for one in (node, quantize))
        if here is not None and there is not None and not (here.reshape(-1) == there.reshape(-1)[:1]).all():
            raise VerificationError(_defect(node, f"integers with another scale than {name_of(quantize)} gave them"))


def _defect(node: ir.Node, what: str) -> str:
    return (
        f"In the INT8 file, {name_of(node)} ({node.op_type}) reads {what}; nothing was written. This is a defect of "
        "rexport, please report it."
    )
