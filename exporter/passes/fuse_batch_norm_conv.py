"""BatchNormalization → Conv becomes one Conv, or a Pad and a Conv where the padding asks for it.

With the BatchNormalization written as ``a x + c`` per input channel (see ``_batch_norm``):

    W ∗ (a x + c) + b  =  (W a) ∗ x + (b + Σ W c)     W'[o, i] = W[o, i] a[i],   b'[o] = b[o] + Σ_ijk W[o, i, j, k] c[i]

The sum holds where every kernel position lies inside the picture, and not where the convolution pads with zeros: they
would have to be −c/a, which becomes 0 under the map. So, where it pads and ``c`` is not 0,

- if −c/a is one number for all channels, a Pad puts that number around the picture, and the convolution pads no more;
- otherwise a Pad gives the picture one more channel, of one number, which stands for the shift (see ``_border``).

Either Pad copies numbers and computes none. In group ``g``, ``i`` runs over that group's input channels; each group
would need a channel of its own between those of the others, so that is refused. The same holds for the multiplication
by a constant and the addition of one (see ``_affine``), and for several maps in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport.passes._affine import affine_of, mapped_by, may_broadcast, why_not_affine
from rexport.passes._base import RewritePass
from rexport.passes._batch_norm import Affine
from rexport.passes._border import border_value, with_constant_channel
from rexport.passes._conv import pads, pads_the_same, set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import constant, contents_of, graph_of, int_attribute, is_op, only_consumer, shape_of
from rexport.passes._pad import Padding, new_pad

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FuseBatchNormConv"]


@dataclass(frozen=True)
class _MapsConv:
    """The maps in a row before a convolution, the last one first."""

    maps: tuple[ir.Node, ...]
    conv: ir.Node


@dataclass(frozen=True)
class _Folded:
    """The weight and the bias of the one convolution, in float64, and how to pad its picture first, if at all."""

    weight: np.ndarray
    bias: np.ndarray
    padding: Padding | None = None


class FuseBatchNormConv(RewritePass[_MapsConv]):
    """Folds a BatchNormalization, or a constant factor or summand per channel, into the convolution after it."""

    summary = "fuses BatchNormalization into the Conv after it"

    def match(self, node: ir.Node) -> _MapsConv | None:
        """Match a map whose result only one Conv reads, as its picture, and the maps right before that map."""
        if mapped_by(node) is None:
            return None
        conv = only_consumer(node.outputs[0])
        if not is_op(conv, "Conv") or conv.inputs[0] is not node.outputs[0]:
            return None
        maps, value = [node], mapped_by(node)
        while value is not None and only_consumer(value) is maps[-1] and (above := value.producer()) is not None:
            value = mapped_by(above)
            if value is None or _why_not_affine(above, conv) is not None:
                break
            maps.append(above)
        return _MapsConv(tuple(maps), conv)

    def check(self, match: _MapsConv) -> str | None:
        """Allow constant parameters, a weight of its own, padding under a shift without groups, and finite weights."""
        if refusal := why_not_foldable(match.conv) or _why_not_affine(match.maps[0], match.conv):
            return refusal
        folded = _folded(match)
        if folded is None:
            return "the convolution after it has groups and pads with zeros, which do not commute with its shift"
        return why_not_storable(match.conv, folded.weight, folded.bias)

    def rewrite(self, match: _MapsConv) -> None:
        """Scale the weight's input channels, fold the shift into the bias or the border, and drop the maps."""
        conv, source, folded = match.conv, mapped_by(match.maps[-1]), _folded(match)
        graph, dtype = graph_of(conv), contents_of(conv.inputs[1]).dtype
        assert source is not None
        assert folded is not None
        set_weights(conv, folded.weight, folded.bias, name=str(conv.outputs[0].name))
        if folded.padding is not None:
            pad = new_pad(graph, source, folded.padding, dtype, name=f"{match.maps[0].outputs[0].name}_padded")
            graph.insert_before(conv, pad)
            source = pad.outputs[0]
            if folded.padding.axes != {1}:
                conv.attributes.pop("pads")
        conv.replace_input_with(0, source)
        for node in match.maps:
            graph.remove(node, safe=True)


def _why_not_affine(node: ir.Node, conv: ir.Node) -> str | None:
    weight, source = constant(conv.inputs[1]), mapped_by(node)
    if weight is None or source is None:
        return None
    channels = weight.shape[1] * int_attribute(conv, "group", 1)
    shape = shape_of(source)
    if may_broadcast(node) and (len(shape) != weight.ndim or shape[1] != channels):
        return f"what it maps is not known to have the {channels} channels of its result"
    return why_not_affine(node, channels=channels, rank=weight.ndim)


def _folded(match: _MapsConv) -> _Folded | None:
    """Return the one convolution; ``None`` if neither border is possible."""
    weight, bias = weights_of(match.conv)
    affine = _composed(match, channels=weight.shape[1] * int_attribute(match.conv, "group", 1), rank=weight.ndim)
    if not (affine.shift.any() and pads(match.conv)):
        return _Folded(*_without_border(match.conv, weight, bias, affine))
    padding = _border_of_zeros(match.conv, weight, affine)
    if padding is not None:
        return _Folded(*_without_border(match.conv, weight, bias, affine), padding)
    if weight.shape[1] != len(affine.scale):
        return None
    zeros = (0,) * weight.ndim
    value = border_value(affine, contents_of(match.conv.inputs[1]).dtype)
    padding = Padding(zeros, (0, 1, *zeros[2:]), value)
    return _Folded(with_constant_channel(weight, affine, value=value), bias, padding)


def _composed(match: _MapsConv, *, channels: int, rank: int) -> Affine:
    """Return the one map that several in a row are."""
    scale, shift = np.ones(channels), np.zeros(channels)
    for node in reversed(match.maps):
        affine = affine_of(node, channels=channels, rank=rank)
        scale, shift = affine.scale * scale, affine.scale * shift + affine.shift
    return Affine(scale, shift)


def _without_border(
    conv: ir.Node, weight: np.ndarray, bias: np.ndarray, affine: Affine
) -> tuple[np.ndarray, np.ndarray]:
    groups = int_attribute(conv, "group", 1)
    # (groups, outputs of a group, inputs of a group, kernel positions)
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    shifts = (grouped * affine.shift.reshape(groups, 1, -1, 1)).sum(axis=(2, 3)).reshape(-1)
    return (grouped * affine.scale.reshape(groups, 1, -1, 1)).reshape(weight.shape), bias + shifts


def _border_of_zeros(conv: ir.Node, weight: np.ndarray, affine: Affine) -> Padding | None:
    """Return the padding that the map turns into zeros, if it is one number and its widths are known."""
    if pads_the_same(conv):
        return None
    with np.errstate(all="ignore"):
        numbers = set((-affine.shift / affine.scale).astype(contents_of(conv.inputs[1]).dtype).tolist())
    number = numbers.pop()
    if numbers or not np.isfinite(number):
        return None
    widths = conv.attributes.get_ints("pads", [])
    return Padding((0, 0, *widths[: weight.ndim - 2]), (0, 0, *widths[weight.ndim - 2 :]), number)
