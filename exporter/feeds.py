"""What a model is given: one array, or several by the names of its inputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

from rexport._errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Feed",
    "arrays_of",
    "by_name",
    "examples_in",
    "filled_up",
    "first_examples",
    "in_batches",
    "is_function",
    "one_array",
]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Feed: TypeAlias = "np.ndarray | dict[str, np.ndarray]"
"""The array of a model's one input, or the arrays of its inputs by their names; examples lie along the first axis."""


def is_function(text: Path | str) -> bool:
    """Say whether a text names a Python function, as ``module:function``, and no file that exists."""
    return _FUNCTION.fullmatch(str(text)) is not None and not Path(text).exists()


def arrays_of(feed: Feed) -> tuple[np.ndarray, ...]:
    """Return the arrays of a feed."""
    return (feed,) if isinstance(feed, np.ndarray) else tuple(feed.values())


def by_name(feed: Feed, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays by the names of a model's inputs."""
    return {names[0]: feed} if isinstance(feed, np.ndarray) else {name: feed[name] for name in names}


def one_array(feed: Feed) -> np.ndarray:
    """Return the array of a model with one input, for a runtime that takes no others.

    Raises:
        UnavailableError: The model has several inputs.
    """
    if isinstance(feed, np.ndarray):
        return feed
    raise UnavailableError(f"The model has the inputs {', '.join(feed)}, and this runtime takes one; try --on cpu.")


def examples_in(feed: Feed) -> int:
    """Return the length of the first axis; 1 for inputs that are a single number."""
    first = arrays_of(feed)[0]
    return len(first) if first.ndim else 1


def first_examples(feed: Feed, count: int) -> Feed:
    """Return the first examples."""
    if isinstance(feed, np.ndarray):
        return feed[:count]
    return {name: array[:count] for name, array in feed.items()}


@overload
def in_batches(feed: np.ndarray, size: int | None) -> Iterator[np.ndarray]: ...


@overload
def in_batches(feed: Feed, size: int | None) -> Iterator[Feed]: ...


def in_batches(feed: Feed, size: int | None) -> Iterator[Feed]:
    """Yield a feed in parts of exactly ``size`` examples, the last filled up with copies of its last one.

    Without a size, or where it has that size, it is one part.
    """
    count = examples_in(feed)
    if size is None or count == size:
        yield feed
        return
    for start in range(0, count, size):
        if isinstance(feed, np.ndarray):
            yield filled_up(feed[start : start + size], size)
        else:
            yield {name: filled_up(array[start : start + size], size) for name, array in feed.items()}


def filled_up(examples: np.ndarray, size: int) -> np.ndarray:
    """Return a batch of ``size``: the examples, and copies of the last one."""
    if len(examples) == size:
        return examples
    return np.concatenate([examples, np.repeat(examples[-1:], size - len(examples), axis=0)])
