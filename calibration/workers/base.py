"""The protocol of workers, and the errors after which a part of the work is repeated."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

__all__ = ["Work", "Workers", "memory_errors"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)

# ONNX Runtime 1.31 raises its Fail and RuntimeException, as for any other failure
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")


class Work(Protocol[ItemT_contra, ResultT_co]):
    """What to do with every item, as data that can be pickled."""

    def open(self) -> Callable[[ItemT_contra], ResultT_co]:
        """Return the function that does it; called once in each worker."""
        ...


class Workers(Protocol):
    """Do work on many items."""

    @property
    def threads(self) -> int:
        """The number of threads of each worker's runtime."""
        ...

    def map(self, work: Work[ItemT, ResultT], items: Sequence[ItemT]) -> Generator[tuple[int, ResultT], None, None]:
        """Yield the index and the result of each item, in the order in which they are done.

        The item of a worker that is lost, or has no memory left, is repeated by another one; all other errors of the
        work are raised at once. Closing the generator, an error or Ctrl-C stops all workers.

        Raises:
            RexportError: Workers are lost again and again.
            Exception: The errors of the work.
        """
        ...


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise a plain :class:`MemoryError` where numpy or ONNX Runtime, each in its own way, has no memory left."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
            raise MemoryError(str(error)) from error
        raise
