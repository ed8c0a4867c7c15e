"""A strided convolution of a few channels becomes one of four times as many, without a stride: the stem of ResNets.

With a picture's 2 × 2 blocks as channels, X[j, r] = x[2j + r] (in height and in width), a convolution of stride 2 that
pads p in front,

    y[i]  =  Σ_u W[u] x[2i + u − p]  =  Σ_v Σ_r V[v, r] X[i + v − q, r]      V[v, r] = W[2v + r − (2q − p)],  q = ⌈p/2⌉

is one of stride 1 that pads q; where W has no such position, V is zero. Kernels of integer convolutions multiply four
channels at a time, and three leave one of them idle; here they are twelve. The zeros around a 7 × 7 kernel make it
8 × 8, so there is more to multiply too, and only a measurement tells which is faster: see ``rexport.tuning``.
SpaceToDepth of the ONNX operators; the stem of He et al. 2015, arXiv:1512.03385, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rexport.passes._base import NodePass
from rexport.passes._builder import Builder
from rexport.passes._graph import (
    attributes_of,
    constant,
    contents_of,
    graph_of,
    int_attribute,
    is_op,
    name_of,
    remove_unread,
    shape_of,
)
from rexport.passes._quantized import change_weight, dequantize_of, stored, why_not_changeable

__all__ = ["SpaceToDepthStem"]

_FEW = 4  # channels; more would fill the kernels by themselves
_BLOCK = 2


@dataclass(frozen=True)
class _Axis:
    """The padding of a convolution of stride 2 along height or width, and of the convolution that replaces it."""

    kernel: int
    begin: int
    end: int

    @property
    def new_begin(self) -> int:
        return -(-self.begin // _BLOCK)

    @property
    def shift(self) -> int:
        """How many zeros come before the kernel, so that it starts with a block."""
        return self.new_begin * _BLOCK - self.begin

    @property
    def new_kernel(self) -> int:
        return -(-(self.kernel + self.shift) // _BLOCK)

    @property
    def new_end(self) -> int:
        """The padding at the end that keeps the size of the result, for a picture of whole blocks."""
        return (self.begin + self.end - self.kernel) // _BLOCK - self.new_begin + self.new_kernel


class SpaceToDepthStem(NodePass):
    """Gives the first convolution, float or quantized, blocks of pixels as channels."""

    summary = "lets a stem of stride 2 read 2 × 2 blocks as channels"

    def matches(self, node: ir.Node) -> bool:
        """Match a convolution of stride 2 that reads a few channels of pictures."""
        if not is_op(node, "Conv") or list(node.attributes.get_ints("strides", [])) != [_BLOCK] * 2:
            return False
        weight = constant(stored(node.inputs[1]))
        return weight is not None and weight.ndim == 4 and weight.shape[1] <= _FEW

    def check(self, match: ir.Node) -> str | None:
        """Allow a plain convolution of pictures of an even size, with a weight of its own."""
        if int_attribute(match, "group", 1) != 1:
            return "it has groups"
        if any(dilation != 1 for dilation in match.attributes.get_ints("dilations", [])):
            return "it is dilated"
        if match.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            return "its padding is not stated (auto_pad)"
        sides = shape_of(match.inputs[0])[2:]
        if not sides or not all(isinstance(side, int) and side % _BLOCK == 0 for side in sides):
            return "its pictures are not known to have an even height and width"
        if refusal := why_not_changeable(match):
            return refusal
        if any(axis.new_end < 0 for axis in _axes(match)):
            return "it does not read the picture to its end"
        return None

    def rewrite(self, match: ir.Node) -> None:
        """Put a SpaceToDepth before it (before the DequantizeLinear, where there is one), and reorder its weight."""
        vertical, horizontal = _axes(match)
        change_weight(match, lambda weight, zeros: _in_blocks(weight, zeros, vertical, horizontal))
        match.attributes.add(ir.AttrInt64s("strides", [1, 1]))
        match.attributes.add(ir.AttrInt64s("kernel_shape", [vertical.new_kernel, horizontal.new_kernel]))
        pads = [vertical.new_begin, horizontal.new_begin, vertical.new_end, horizontal.new_end]
        match.attributes.add(ir.AttrInt64s("pads", pads))
        _read_blocks(match)


def _read_blocks(conv: ir.Node) -> None:
    """Let a convolution read its picture, floats or integers, in blocks."""
    picture, dequantize = conv.inputs[0], dequantize_of(conv.inputs[0])
    source = stored(picture)
    assert picture is not None
    assert source is not None
    builder, shape = Builder(graph_of(conv), before=conv, prefix=name_of(conv)), _shape_in_blocks(picture)
    blocks = builder.node("SpaceToDepth", [source], "blocks", shape=shape, dtype=source.dtype, blocksize=_BLOCK)
    if dequantize is not None:
        inputs, attributes = [blocks, *dequantize.inputs[1:]], attributes_of(dequantize)
        blocks = builder.node("DequantizeLinear", inputs, "dequantized", shape=shape, dtype=picture.dtype, **attributes)
    conv.replace_input_with(0, blocks)
    if dequantize is not None:
        remove_unread(dequantize)


def _axes(conv: ir.Node) -> tuple[_Axis, _Axis]:
    pads = conv.attributes.get_ints("pads", [0, 0, 0, 0])
    height, width = contents_of(stored(conv.inputs[1])).shape[2:]
    return _Axis(height, pads[0], pads[2]), _Axis(width, pads[1], pads[3])


def _in_blocks(weight: np.ndarray, zeros: np.ndarray, vertical: _Axis, horizontal: _Axis) -> np.ndarray:
    """Return V of shape ``(O, 4 I, new kernel)``, channels in SpaceToDepth's order: row, column, old channel."""
    outputs, inputs, height, width = weight.shape
    rows, columns = vertical.new_kernel, horizontal.new_kernel
    padded = np.empty((outputs, inputs, rows * _BLOCK, columns * _BLOCK), weight.dtype)
    padded[...] = zeros.reshape(-1, 1, 1, 1)
    row, column = vertical.shift, horizontal.shift
    padded[:, :, row : row + height, column : column + width] = weight
    blocks = padded.reshape(outputs, inputs, rows, _BLOCK, columns, _BLOCK).transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(blocks).reshape(outputs, _BLOCK * _BLOCK * inputs, rows, columns)


def _shape_in_blocks(picture: ir.Value) -> list[int | ir.SymbolicDim]:
    batch, *sizes = shape_of(picture)
    channels, height, width = (size for size in sizes if isinstance(size, int))
    return [batch, _BLOCK * _BLOCK * channels, height // _BLOCK, width // _BLOCK]
