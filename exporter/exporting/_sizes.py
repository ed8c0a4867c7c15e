"""Pictures of any height and width: checking that a network takes them, and a second size to try it at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rexport._errors import UsageError
from rexport._words import first_line
from rexport.preprocessing import sides_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.preprocessing import Size

__all__ = ["other_size", "require_any_size"]


def other_size(size: Size) -> tuple[int, int]:
    """Return a height and a width, different from each other and larger than those of ``size``."""
    height, width = sides_of(size)
    return height + height // 4 + 1, width + width // 2


def require_any_size(module: torch.nn.Module, shape: Sequence[int]) -> None:
    """Make sure that ``module`` takes pictures of another size than those of ``shape``, ``(C, H, W)``.

    Raises:
        UsageError: It does not.
    """
    channels, *size = shape
    height, width = other_size((size[0], size[1]))
    with torch.inference_mode():
        try:
            module(torch.zeros(1, channels, height, width))
        except RuntimeError as error:  # PyTorch raises it where shapes do not fit
            reason = first_line(error).rstrip(".")
            raise UsageError(
                f"The network takes pictures of {size[0]}×{size[1]} but not of {height}×{width} ({reason}); for "
                "any size it must end in global average pooling. Export it without --any-size."
            ) from error
