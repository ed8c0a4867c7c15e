"""Centring: channels of sums that no ReLU cuts off are shifted, so that they reach equally far on both sides of zero.

Pre-activation networks (He et al. 2016, arXiv:1603.05027) and inverted residuals (Sandler et al. 2018,
arXiv:1801.04381) carry such sums from block to block. A tensor has one zero point for all its channels, so a channel
from -1 to 3 takes the integers of one from -3 to 3. With shifts m, the layers that write and read the tensors have

    x'_c = x_c - m_c        b'_o = b_o + Σ_i m_i Σ_k W_oik - m_o        μ'_c = μ_c - m_c

which is the same function for convolutions without padding and normalisations as readers. The shift of a sum is that of
both its terms together. Its last term is a convolution that only the sum reads: its shift is halfway between the one
that centres its result and the one that centres the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._onnx_proto import name_nodes
from rexport.passes._conv import pads, weights_of
from rexport.passes._graph import (
    contents_of,
    int_attribute,
    is_op,
    name_of,
    only_consumer,
    remembered_names,
    replace_initializer,
)
from rexport.quantization.equalization import channel_ends, common_factors, is_scalable, scaled_together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from rexport.calibration import CalibrationTable

__all__ = ["centre_channels"]


def centre_channels(model: ir.Model, table: CalibrationTable) -> tuple[ir.Model, Mapping[str, np.ndarray]]:
    """Return a copy of a float ``model`` with shifted tensors, and the shifts, float64 of shape ``(C,)``, by tensor."""
    copy = model.clone()
    name_nodes(copy)
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    shifts: dict[str, np.ndarray] = {}
    for tensors in scaled_together(copy.graph):
        if all(tensor in table.tensors and _is_shiftable(values[tensor]) for tensor in tensors):
            centred = _shifts([values[tensor] for tensor in tensors], table)
            if centred and _change_of_noise(tensors, table, centred) < 1:
                shifts |= centred
    with remembered_names(copy.graph):
        for node in [node for node in copy.graph if is_scalable(node)]:
            _shift_layer(node, *(shifts.get(str(value.name)) for value in (node.inputs[0], node.outputs[0]) if value))
    return copy, shifts


def _is_shiftable(value: ir.Value) -> bool:
    """Say whether the operators around a tensor, all of which can be scaled, can be shifted too."""
    readers = value.consumers()
    return is_op(value.producer(), "Conv", "Add") and all(
        is_op(reader, "BatchNormalization", "Add") or (is_op(reader, "Conv") and not pads(reader)) for reader in readers
    )


def _shifts(values: Sequence[ir.Value], table: CalibrationTable) -> dict[str, np.ndarray]:
    """Return the shift of each tensor, in the order of the graph; none for tensors of unlike channels."""
    centres = {str(value.name): np.add(*channel_ends(str(value.name), table)) / 2 for value in values}
    if len({len(centre) for centre in centres.values()}) != 1:
        return {}
    shifts: dict[str, np.ndarray] = {}
    for value in values:
        name, node = str(value.name), value.producer()
        shifts[name] = centres[name]
        if node is None or not is_op(node, "Add"):
            continue
        terms = [str(term.name) for term in node.inputs if term is not None]
        last = next((i for i in (1, 0) if _is_only_added(node.inputs[i])), None)
        if last is not None:
            rest = centres[name] - shifts[terms[1 - last]]
            shifts[terms[last]] = (centres[terms[last]] + rest) / 2
        shifts[name] = shifts[terms[0]] + shifts[terms[1]]
    return shifts


def _is_only_added(term: ir.Value | None) -> bool:
    return term is not None and is_op(term.producer(), "Conv") and only_consumer(term) is not None


def _change_of_noise(tensors: Sequence[str], table: CalibrationTable, shifts: Mapping[str, np.ndarray]) -> float:
    """Return the power of a channel's rounding errors with ``shifts`` over that without, the mean of all channels."""
    powers: list[np.ndarray] = []
    for moved in (shifts, {}):
        factors = common_factors(tensors, table, moved)
        if factors is None:
            return 1.0
        ends = [np.divide(channel_ends(tensor, table, moved), factors) for tensor in tensors]
        steps = np.array([max(highs.max(), 0.0) - min(lows.min(), 0.0) for lows, highs in ends])
        powers.append(np.square(steps).sum() * factors**2)
    return float(np.mean(powers[0] / powers[1]))


def _shift_layer(node: ir.Node, before: np.ndarray | None, after: np.ndarray | None) -> None:
    """Let a layer read its input without ``before``, and write its result without ``after``, each of shape ``(C,)``."""
    if is_op(node, "BatchNormalization"):
        if before is not None:
            mean = (contents_of(node.inputs[3]) - before).astype(np.float32)
            replace_initializer(node, 3, mean, name=f"{name_of(node)}.mean_centred")
        return
    if before is None and after is None:
        return
    weight, bias = weights_of(node)
    if before is not None:
        groups = int_attribute(node, "group", 1)
        inputs = before.reshape(groups, -1).repeat(len(weight) // groups, axis=0)
        bias = bias + (weight.reshape(*inputs.shape, -1).sum(axis=2) * inputs).sum(axis=1)
    if after is not None:
        bias = bias - after
    replace_initializer(node, 2, bias.astype(np.float32), name=f"{name_of(node)}.bias_centred")
