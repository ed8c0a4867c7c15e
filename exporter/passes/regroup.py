"""k neighbouring groups of a grouped convolution become one, with zeros between them: exact, and often faster.

For a convolution in g groups, y_j = W_j ∗ x_j with group j's own channels, k neighbours are one block-diagonal product:

    [y_1; …; y_k]  =  diag(W_1, …, W_k) ∗ [x_1; …; x_k]        weight (O, k · I/g, …) for (O, I/g, …), in g / k groups

The zeros add nothing to any sum, in floats or in integers (there, zero is the weight's zero point), so the results are
the same. A convolution in many small groups is many small matrix products, each with a cost of its own; merged, they
are fewer and larger ones that multiply some zeros. Which k is fastest depends on the layer and on the runtime: see
``rexport.tuning``, which measures it. The groups of ResNeXt: Xie et al. 2016, arXiv:1611.05431.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import int_attribute, is_op
from rexport.passes._quantized import change_weight, why_not_changeable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Regroup", "groups_of"]


@dataclass(frozen=True)
class _Regrouping:
    conv: ir.Node
    merged: int


class Regroup(RewritePass[_Regrouping]):
    """Merges neighbouring groups of convolutions, float or quantized.

    Args:
        merged: Returns how many neighbouring groups of a convolution become one; 1 leaves it as it is.
    """

    summary = "merges neighbouring groups of convolutions"

    def __init__(self, merged: Callable[[ir.Node], int]) -> None:
        super().__init__()
        self._merged = merged

    def match(self, node: ir.Node) -> _Regrouping | None:
        """Match a grouped convolution some of whose groups are to merge."""
        if groups_of(node) == 1 or (merged := self._merged(node)) <= 1:
            return None
        return _Regrouping(node, merged)

    def check(self, match: _Regrouping) -> str | None:
        """Allow a divisor of the groups, and a constant weight, floats or integers, of the convolution's own."""
        groups = groups_of(match.conv)
        if groups % match.merged:
            return f"its {groups} groups can't merge by {match.merged}; choose a divisor"
        return why_not_changeable(match.conv)

    def rewrite(self, match: _Regrouping) -> None:
        """Store the weight with its zeros, and count fewer groups."""
        groups, merged = groups_of(match.conv), match.merged
        change_weight(match.conv, lambda weight, zeros: _block_diagonal(weight, zeros, groups, merged))
        match.conv.attributes.add(ir.AttrInt64("group", groups // merged))


def groups_of(node: ir.Node) -> int:
    """Return the number of groups of a convolution, 1 for any other node."""
    return int_attribute(node, "group", 1) if is_op(node, "Conv") else 1


def _block_diagonal(weight: np.ndarray, zeros: np.ndarray, groups: int, merged: int) -> np.ndarray:
    """Return the weight of shape ``(O, merged · I, ...)`` for one of shape ``(O, I, ...)`` in ``groups`` groups.

    ``zeros`` of shape ``(O,)`` are the numbers between the blocks.
    """
    outputs, inputs, *kernel = weight.shape
    per_group = outputs // groups
    result = np.empty((groups // merged, merged, per_group, merged, inputs, *kernel), weight.dtype)
    result[...] = zeros.reshape(groups // merged, merged, per_group, *[1] * (2 + len(kernel)))
    blocks = weight.reshape(groups // merged, merged, per_group, inputs, *kernel)
    for place in range(merged):
        result[:, place, :, place] = blocks[:, place]
    return result.reshape(outputs, merged * inputs, *kernel)
