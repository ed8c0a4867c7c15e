"""Decoding pictures in threads, a little ahead of the reader.

Pillow lets go of the interpreter lock while it decodes.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rexport._cpu import this_cpu
from rexport._errors import DataError
from rexport.calibration.dataset import BadImage
from rexport.device import _pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from PIL.Image import Image

__all__ = ["UnreadableError", "in_threads", "read_picture"]

_T = TypeVar("_T")
_R = TypeVar("_R")


def read_picture(path: Path, crop: Callable[[Image], _R]) -> _R | BadImage:
    """Open a picture and return the result of ``crop``, or the reason why it can't be used."""
    try:
        return _pictures.read_picture(path, crop)
    except (DataError, _pictures.PictureError) as error:
        return BadImage(path, str(error))


def in_threads(
    function: Callable[[_T], _R], items: Iterable[_T], *, ahead: int
) -> Generator[tuple[_T, _R], None, None]:
    """Yield each item with the result of ``function``, in order, computing up to ``ahead`` of them in advance.

    Closing the generator waits for the running ones and starts no others.
    """
    waiting: deque[tuple[_T, Future[_R]]] = deque()
    with ThreadPoolExecutor(this_cpu().cores) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class UnreadableError(DataError):
    """Images can't be used: the message counts them among ``total`` and names the first few."""

    def __init__(self, bad: Sequence[BadImage], total: int) -> None:
        lines = [f"{len(bad)} of {total} images can't be used:", *map(str, bad[:5])]
        if len(bad) > 5:
            lines.append(f"… and {len(bad) - 5} more")
        hint = "Repair or remove them."
        if len(bad) < total:
            hint = "Repair or remove them, or pass --skip-bad to go on without them."
        super().__init__("\n  ".join(lines) + f"\n{hint}")
        self.bad = tuple(bad)
        self.total = total

    def __reduce__(self) -> tuple[type[UnreadableError], tuple[tuple[BadImage, ...], int]]:
        return type(self), (self.bad, self.total)
