"""Several networks as one: the average of their softmax scores.

    p(x) = 1/n Σ_i softmax(f_i(x))

The entry that won the competition of 2015 averaged six networks so (He et al. 2015, arXiv:1512.03385, table 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Networks of the same classes, on the same images.

    Args:
        members: Each maps ``(N, 3, S, S)`` to logits ``(N, classes)``.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float ``(N, 3, S, S)``, to probabilities ``(N, classes)``."""
        first, *remaining = self.members
        total: Tensor = first(x).softmax(dim=1)
        for member in remaining:
            total = total + member(x).softmax(dim=1)
        return total / len(self.members)
