"""What is counted of images, batch by batch; counts add up exactly, in any order.

Of the sums in SQNR each batch has a float64, and their sum is a fraction, without rounding. So whoever counts the
batches, and however many share the work, the result is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

__all__ = ["Counts"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of images, and of what is right among them.

    Attributes:
        images: How many there were.
        top1: How many of them have the right class as the best.
        top5: Among the best five.
        reference_top1: Likewise of the reference.
        agreeing: How many have the same best class in both.
        signal: Σ r² over the scores r of the reference.
        noise: Σ (r − y)² over those and the scores y of the model.
    """

    images: int = 0
    top1: int = 0
    top5: int = 0
    reference_top1: int = 0
    agreeing: int = 0
    signal: Fraction = Fraction(0)
    noise: Fraction = Fraction(0)

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of the images of both."""
        return Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)})
