"""Proof that an INT8 model stores the float model: each layer its own weights, each tensor one scale.

A wrong weight in one layer of many hardly shows in the results of the network. So the integers q of each weight w, with
a scale s for its channel, are compared with the float model layer by layer. With e = q − clip(w / s), rounding to the
nearest gives |e| ≤ ½; rounding for a layer's inputs gives 5 at most in trained networks, and gave 28 in one of random
weights, whose inputs are nearly dependent. So

    |e| ≤ 64        Σ e² ≤ ½ Σ clip(w / s)² + 4 max(n, 64)        over the n weights of a channel

is allowed (a few weights that are small beside their bias compensate much of each other's rounding); a wrong weight
(of another layer or channel, with another sign or scale) is mostly off by more. And each reader of a tensor's integers
has to dequantize them with the scale that they were quantized with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import VerificationError
from rexport.passes._graph import constant, input_at, is_op, name_of, producer_of
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
    dequantize = producer_of(node.inputs[1], "DequantizeLinear")
    if layer is None or layer.op_type != node.op_type or dequantize is None:
        return
    weight, integers, scale = map(constant, (layer.inputs[1], *dequantize.inputs[:2]))
    if weight is None or integers is None or scale is None:
        return
    if weight.shape != integers.shape:
        raise VerificationError(_defect(node, f"a weight of shape {integers.shape} instead of {weight.shape}"))
    per_channel = [1] * weight.ndim
    per_channel[output_axis(node)] = -1
    limits = np.iinfo(integers.dtype)
    expected = np.clip(weight.astype(np.float64) / scale.reshape(per_channel), limits.min, limits.max)
    errors = integers - expected
    steps = float(np.abs(errors).max(initial=0.0))
    axes = tuple(axis for axis, size in enumerate(per_channel) if size == 1)
    per_channel_count = errors.size / max(len(scale), 1)
    allowed = _NOISE * np.square(expected).sum(axis=axes) + _ROUNDING * max(per_channel_count, _FEWEST)
    if not steps <= _MOST_STEPS or (np.square(errors).sum(axis=axes) > allowed).any():
        raise VerificationError(_defect(node, f"a weight that is {steps:.0f} quantization steps off"))


def _audit_scale(node: ir.Node, layers: Mapping[str, ir.Node]) -> None:
    quantize: ir.Node | None = node
    while quantize is not None and not is_op(quantize, "QuantizeLinear"):  # operators between them move integers
        quantize = producer_of(quantize.inputs[0])
    if quantize is None or name_of(quantize) in layers:  # one for whole pixels has another scale on purpose
        return
    for index in (1, 2):
        written, read = constant(input_at(quantize, index)), constant(input_at(node, index))
        if read is not None and written is not None and not (read.reshape(-1) == written.reshape(-1)[:1]).all():
            raise VerificationError(_defect(node, f"integers with another scale than {name_of(quantize)} wrote"))


def _defect(node: ir.Node, input_in_words: str) -> str:
    return (
        f"In the INT8 file, {name_of(node)} ({node.op_type}) reads {input_in_words}; nothing was written. "
        "This is a bug in rexport, please report it."
    )
