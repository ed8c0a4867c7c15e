"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: float, noun: str) -> str:
    """Return ``1 thread``, ``2 threads``."""
    plural = "" if count == 1 else "s"
    return f"{count:g} {noun}{plural}"
