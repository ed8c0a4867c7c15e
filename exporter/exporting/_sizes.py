"""Pictures of any height and width: checking that a network takes them, and a second size to try it at."""

from __future__ import annotations

import torch

from rexport._errors import UsageError
from rexport._words import first_line

__all__ = ["other_size", "require_any_size"]


def other_size(size: int) -> tuple[int, int]:
    """Return a height and a width, different from each other and larger than ``size``; for most, one is odd."""
    return size + size // 4 + 1, size + size // 2


def require_any_size(module: torch.nn.Module, size: int) -> None:
    """Make sure that ``module`` takes pictures of another size than ``size`` × ``size``.

    Raises:
        UsageError: It does not.
    """
    height, width = other_size(size)
    with torch.inference_mode():
        try:
            module(torch.zeros(1, 3, height, width))
        except RuntimeError as error:  # PyTorch raises it where shapes do not fit
            reason = first_line(error).rstrip(".")
            raise UsageError(
                f"The network takes pictures of {size}×{size} but not of {height}×{width} ({reason}); for "
                "any size it must end in global average pooling. Export it without --any-size."
            ) from error
