"""What an engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["Engine", "Work"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Work(Protocol[ItemT_contra, ResultT_co]):
    """What is to be done with every item, as data that can be pickled."""

    def open(self) -> Callable[[ItemT_contra], ResultT_co]:
        """Return the function that does it; called once in each worker."""
        ...


class Engine(Protocol):
    """Does work on many items."""

    @property
    def threads(self) -> int:
        """How many threads each worker's runtime is to use."""
        ...

    def map(self, work: Work[ItemT, ResultT], items: Sequence[ItemT]) -> Generator[tuple[int, ResultT], None, None]:
        """Yield the index and the result of each item, in the order in which they are done.

        What a worker that was lost had under way is done again by another one. Closing the generator, an error or
        Ctrl-C stops all workers.

        Raises:
            RexportError: What the work raises itself, or workers are lost again and again.
        """
        ...
