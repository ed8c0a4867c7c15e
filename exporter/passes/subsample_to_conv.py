"""A shortcut that leaves pixels out and adds channels of zeros becomes one 1×1 convolution.

    pad(x[:, :, ::s, ::s], before, after)  =  P ∗ x  in strides of s        P[before + i, i] = 1, all else 0

It is option A of He et al. 2015, arXiv:1512.03385, section 4.2, which exporters write as a Slice for each axis and a
Pad. One convolution reads the picture once where they copy it up to four times, and has an INT8 kernel. Each sum has
one term that is not zero, so for finite numbers the result is exactly the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import (
    add_initializer,
    graph_of,
    is_op,
    only_consumer,
    replace_node,
    shape_of,
    type_in_words,
)
from rexport.passes._pad import padding_of, rank_of, why_not_fixed
from rexport.passes._slice import slices_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SubsampleToConv"]

_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class _Subsample:
    """Slices in a row, the last one first, that leave every ``stride``-th pixel of each axis, before ``pad``."""

    slices: tuple[ir.Node, ...]
    pad: ir.Node
    strides: tuple[int, ...]

    @property
    def source(self) -> ir.Value:
        source = self.slices[-1].inputs[0]
        assert source is not None
        return source


class SubsampleToConv(RewritePass[_Subsample]):
    """Rewrites Slices of a picture's pixels and a Pad of its channels as a convolution."""

    summary = "turns Slices and a Pad of channels into a 1×1 Conv"

    def match(self, node: ir.Node) -> _Subsample | None:
        """Match a Pad of channels below Slices that leave pixels out, and nothing else."""
        if not is_op(node, "Pad") or (rank := rank_of(node) or 0) < 3:
            return None
        if why_not_fixed(node, rank) is not None or padding_of(node, rank).axes != {1}:
            return None
        strides, slices = [1] * rank, list[ir.Node]()
        value, reader = node.inputs[0], node
        while value is not None and only_consumer(value) is reader:
            above = value.producer()
            steps = _strides(above, rank)
            if above is None or steps is None:
                break
            strides = [stride * step for stride, step in zip(strides, steps, strict=True)]
            slices.append(above)
            value, reader = above.inputs[0], above
        return _Subsample(tuple(slices), node, tuple(strides[2:])) if max(strides) > 1 else None

    def check(self, match: _Subsample) -> str | None:
        """Allow channels of zeros, a known number of channels, and the types that Conv has kernels for."""
        padding, source = padding_of(match.pad, len(match.strides) + 2), match.source
        if padding.value:
            return f"its new channels are {padding.value:g} and not 0"
        if padding.before[1] < 0 or padding.after[1] < 0:
            return "it takes channels away (its widths are negative)"
        if source.shape is None or not isinstance(source.shape[1], int):
            return f"the number of channels of {source.name!r} is not known"
        if source.dtype not in _DTYPES:
            return f"it moves {type_in_words(source)}, and ONNX Runtime's Conv takes float32 and float16 only"
        return None

    def rewrite(self, match: _Subsample) -> None:
        """Put a convolution in the place of the Pad, and take the Slices out."""
        pad, source, graph = match.pad, match.source, graph_of(match.pad)
        assert source.shape is not None
        assert source.dtype is not None
        padding, channels = padding_of(pad, len(source.shape)), source.shape[1]
        assert isinstance(channels, int)
        widths = ((padding.before[1], padding.after[1]), (0, 0))
        kernel = [1] * len(match.strides)
        array = np.pad(np.eye(channels, dtype=source.dtype.numpy()), widths).reshape(-1, channels, *kernel)
        weight = add_initializer(graph, f"{pad.outputs[0].name}.weight", array)
        replace_node(pad, "Conv", [source, weight], {"kernel_shape": kernel, "strides": list(match.strides)})
        for node in match.slices:
            graph.remove(node, safe=True)


def _strides(node: ir.Node | None, rank: int) -> Sequence[int] | None:
    """Return the step of a Slice along each axis; ``None`` if the node does anything else."""
    parts = slices_of(node, rank)
    if node is None or parts is None:
        return None
    shape = shape_of(node.inputs[0]) or [None] * rank
    strides = [1] * rank
    for part in parts:
        step = part.every(shape[part.axis])
        if step is None or (part.axis < 2 and step > 1):
            return None
        strides[part.axis] = step
    return strides
