"""How long work reports its progress, without knowing of terminals."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Opens a progress bar: ``with progress("calibrating", 512) as advance: ... advance(32)``."""

    def __call__(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager that yields the function to call with the number of finished steps."""
        ...


@contextmanager
def silent(description: str, total: int | None) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """The progress that shows nothing."""
    yield lambda steps: None  # noqa: ARG005
