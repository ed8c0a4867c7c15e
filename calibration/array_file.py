"""Images in .npy and .npz files, read a batch at a time, never as a whole."""

from __future__ import annotations

import copy
import lzma
import os
import tokenize
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from rexport._errors import DataError
from rexport.calibration.dataset import Batch, fingerprint_of, spread
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rexport.calibration.dataset import ViewBatch
    from rexport.calibration.views import Views
    from rexport.preprocessing import Preprocessing

__all__ = ["BROKEN", "LABELS", "ArrayFile", "array_names", "open_array", "read_labels"]

_IMAGES, LABELS = "images", "labels"
# what NumPy and zipfile raise over broken files
BROKEN = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,  # by a header that says it has gigabytes
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class Array:
    """An array in a file: its header, and the ``stream`` that stands at its first byte."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: IO[bytes]

    def items(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the items at ``indices`` along the first axis; ``indices`` rise."""
        item_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        position = 0
        for index in indices:
            if position < index:
                self.stream.seek((index - position) * item_bytes, os.SEEK_CUR)
                position = index
            data = self.stream.read(item_bytes)
            if len(data) < item_bytes:
                raise ValueError(f"it ends in the middle of item {index}")
            yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])
            position += 1


class ArrayFile:
    """The images, and labels if there are any, of an .npy or .npz file."""

    classes: None = None

    def __init__(self, path: Path, preprocessing: Preprocessing) -> None:
        self._path = path
        self._preprocessing = preprocessing
        try:
            self._member = _member_of_images(path)
            with open_array(self._path, self._member) as array:
                shape, dtype = array.shape, array.dtype
            self._labels = read_labels(path, shape[0], of="images")
        except BROKEN as error:
            raise DataError(f"{path} can't be read as a NumPy file: {error}.") from error
        takes = preprocessing.takes
        self._ready = not takes.raw and dtype == np.float32 and shape[1:] == preprocessing.input_shape
        picture: tuple[int | str, ...] = preprocessing.shape
        if takes is Takes.PICTURES:
            picture = ("H", "W", preprocessing.channels)
        if not self._ready and not (dtype == np.uint8 and _fits(shape[1:], picture)):
            expected = f"uint8 pictures of shape (N, {', '.join(map(str, picture))})"
            if not takes.raw:
                ready = ", ".join(map(str, preprocessing.input_shape))
                expected = f"float32 of shape (N, {ready}), ready for it, or {expected}"
            raise DataError(f"{path} holds {dtype} of shape {shape}; the model needs {expected}.")
        self._indices: Sequence[int] = range(shape[0])
        if not self._indices:
            raise DataError(f"{path} holds no images.")

    @property
    def labelled(self) -> bool:
        """Whether the .npz has an array ``labels``."""
        return self._labels is not None

    def __len__(self) -> int:
        return len(self._indices)

    def subset(self, indices: Sequence[int]) -> ArrayFile:
        """See :meth:`Dataset.subset`."""
        part = copy.copy(self)
        part._indices = [self._indices[index] for index in indices]
        return part

    def names(self) -> tuple[str, ...]:
        """See :meth:`Dataset.names`."""
        return tuple(f"{self._path}[{index}]" for index in self._indices)

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        return fingerprint_of([self._path], list(self._indices), self._preprocessing)

    def batches(self, size: int, *, samples: int | None = None, skip_bad: bool = False) -> Iterator[Batch]:  # noqa: ARG002
        """See :meth:`Dataset.batches`; there are no bad images to skip in an array."""
        indices = [self._indices[index] for index in spread(len(self), samples)]
        try:
            with open_array(self._path, self._member) as array:
                items = array.items(indices)
                for start in range(0, len(indices), size):
                    part = indices[start : start + size]
                    images, labels = np.stack([next(items) for _ in part]), None
                    if not self._ready:
                        images = self._preprocessing.to_input(images)
                    if self._labels is not None:
                        labels = self._labels[part]
                    yield Batch(feed=images, labels=labels)
        except BROKEN as error:
            raise DataError(f"{self._path} can't be read to its end: {error}.") from error

    def view_batches(
        self,
        views: Views,  # noqa: ARG002
        size: int,  # noqa: ARG002
        *,
        samples: int | None = None,  # noqa: ARG002
        skip_bad: bool = False,  # noqa: ARG002
    ) -> Iterator[ViewBatch]:
        """Raise :class:`DataError`: an array is the network's input, and there is nothing around it."""
        raise DataError(
            f"{self._path} holds what the network takes, and crops and scales are of whole pictures; pass a folder of "
            "images."
        )


@contextmanager
def open_array(path: Path, member: str | None) -> Iterator[Array]:
    """Open the array in the file ``member`` of an .npz, or that of an .npy, to be read item by item.

    Raises what NumPy and zipfile raise over broken files, one of ``BROKEN``.
    """
    with ExitStack() as stack:
        if member is None:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
        else:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream = stack.enter_context(archive.open(member))
        read_header = np.lib.format.read_array_header_2_0
        if np.lib.format.read_magic(stream) == (1, 0):
            read_header = np.lib.format.read_array_header_1_0
        shape, fortran_order, dtype = read_header(stream)
        if fortran_order or dtype.hasobject or not shape:
            raise ValueError("its array is not a plain one in C order; save np.ascontiguousarray(images)")
        yield Array(shape, dtype, stream)


def array_names(path: Path) -> dict[str, str | None]:
    """Return the names of the arrays in an .npz with their members; for an .npy, an empty name without one."""
    if path.suffix == ".npy":
        return {"": None}
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}


def read_labels(path: Path, count: int, *, of: str) -> np.ndarray | None:
    """Return the labels in an .npz, int64 of shape ``(count,)``; ``None`` if it has none.

    Raises one of ``BROKEN``, also where they are not an integer for each of ``count`` of these.
    """
    member = array_names(path).get(LABELS)
    if member is None:
        return None
    with open_array(path, member) as array:
        if array.shape != (count,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"its {LABELS} are {array.dtype} of shape {array.shape}, not an integer for each of {count} {of}"
            )
        return np.array(list(array.items(range(count))), np.int64)


def _fits(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    """Say whether a shape is as ``expected``, where letters stand for any number but zero."""
    if len(shape) != len(expected) or 0 in shape:
        return False
    return all(isinstance(side, str) or size == side for size, side in zip(shape, expected, strict=True))


def _member_of_images(path: Path) -> str | None:
    """Return which file of an .npz holds the images; ``None`` for an .npy."""
    if path.suffix == ".npy":
        return None
    names = list(array_names(path))
    images = [name for name in names if name == _IMAGES] or [name for name in names if name != LABELS]
    if len(images) != 1:
        raise ValueError(f"it needs an array called {_IMAGES!r}, and has {', '.join(names) or 'none'}")
    return f"{images[0]}.npy"
