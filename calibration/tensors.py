"""Examples for models that take anything: arrays by the names of the inputs, from files or a function.

FILE.npz          an array for each input, the examples along its first axis; ``labels`` too, if there are any
FILE.npy          the same for a model with one input
FOLDER            an .npz, or .npy, for each example, as the model takes it
module:function   called without arguments, gives examples as the model takes them: an array, or a tuple or a
dictionary of arrays, one after the other
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rexport._errors import DataError
from rexport._user_code import function_named, import_user_module
from rexport._words import first_line
from rexport.calibration.array_file import BROKEN, LABELS, array_names, open_array, read_labels
from rexport.calibration.dataset import Batch, fingerprint_of, spread
from rexport.feeds import arrays_of, is_function

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rexport.calibration.dataset import ViewBatch
    from rexport.calibration.views import Views
    from rexport.model_inputs import TensorInput

__all__ = ["TensorDataset", "has_tensors", "open_tensors"]

_SUFFIXES = (".npy", ".npz")
_MOST = 100_000  # examples of a function, which may never end


def has_tensors(path: Path) -> bool:
    """Say whether a path names a function, or a folder of array files, which pictures are never read from."""
    if path.is_dir():
        return any(entry.suffix in _SUFFIXES for entry in path.iterdir())
    return is_function(path)


def open_tensors(path: Path, inputs: Sequence[TensorInput]) -> TensorDataset:
    """Open the examples of a model with these ``inputs``.

    Raises:
        DataError: There are none, or they are not what the model takes.
        UsageError: There is no such function.
    """
    source: _Source
    if path.is_dir() and has_tensors(path):
        source = _Folder(path, tuple(sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES)))
    elif path.suffix in _SUFFIXES and path.is_file():
        source = _File.of(path, inputs)
    elif is_function(path):
        source = _Function.of(str(path))
    else:
        names = " and ".join(map(str, inputs))
        raise DataError(
            f"{path} has no arrays, and the model takes {names}: pass an .npz with an array for each input, a "
            "folder with a file for each example, or a Python function as module:function."
        )
    count = len(source)
    if not count:
        raise DataError(f"{path} holds no examples.")
    return TensorDataset(tuple(inputs), source, tuple(range(count)))


class _Source(Protocol):
    """Where examples come from."""

    @property
    def path(self) -> Path:
        """What the user named."""
        ...

    def __len__(self) -> int: ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that the examples depend on."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """The label of each example, int64."""
        ...

    def read(self, indices: Sequence[int], size: int) -> Iterator[tuple[object, Sequence[int]]]:
        """Yield what the model takes for examples at rising ``indices``, up to ``size`` together, and their indices."""
        ...


@dataclass(frozen=True)
class TensorDataset:
    """Examples of a ``source`` for a model with these ``inputs``: those at ``indices``."""

    inputs: tuple[TensorInput, ...]
    source: _Source
    indices: tuple[int, ...]

    @property
    def classes(self) -> None:
        """None: there are no folders of classes."""

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""
        return self.source.labels is not None

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, indices: Sequence[int]) -> TensorDataset:
        """See :meth:`Dataset.subset`."""
        return replace(self, indices=tuple(self.indices[index] for index in indices))

    def names(self) -> tuple[str, ...]:
        """See :meth:`Dataset.names`."""
        return tuple(f"{self.source.path}[{index}]" for index in self.indices)

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        return fingerprint_of(self.source.files, str(self.source.path), self.indices)

    def batches(self, size: int, *, samples: int | None = None, skip_bad: bool = False) -> Iterator[Batch]:  # noqa: ARG002
        """See :meth:`Dataset.batches`; there is nothing to skip."""
        chosen = [self.indices[index] for index in spread(len(self), samples)]
        labels = self.source.labels
        try:
            for example, read in self.source.read(chosen, size):
                arrays = self._arrays(example)
                feed = arrays if len(self.inputs) > 1 else arrays_of(arrays)[0]
                yield Batch(feed=feed, labels=None if labels is None else labels[list(read)])
        except BROKEN as error:
            raise DataError(f"{self.source.path} can't be read: {first_line(error)}.") from error

    def view_batches(
        self,
        views: Views,  # noqa: ARG002
        size: int,  # noqa: ARG002
        *,
        samples: int | None = None,  # noqa: ARG002
        skip_bad: bool = False,  # noqa: ARG002
    ) -> Iterator[ViewBatch]:
        """Raise :class:`DataError`: these are no pictures."""
        raise DataError(f"{self.source.path} holds what the model takes, and crops and scales are of pictures.")

    def _arrays(self, example: object) -> dict[str, np.ndarray]:
        """Return the arrays of an example by the names of the inputs, with their types and shapes."""
        path = self.source.path
        if not isinstance(example, dict):
            arrays = example if isinstance(example, (tuple, list)) else [example]
            if len(arrays) != len(self.inputs):
                names = ", ".join(tensor.name for tensor in self.inputs)
                raise DataError(f"{path} gives {len(arrays)} arrays, and the model takes {names}.")
            example = {tensor.name: array for tensor, array in zip(self.inputs, arrays, strict=True)}
        absent = [tensor.name for tensor in self.inputs if tensor.name not in example]
        if absent:
            raise DataError(
                f"{path} lacks {absent[0]!r}, which the model takes; it has {', '.join(map(str, example))}."
            )
        return {tensor.name: tensor.converted(np.asarray(example[tensor.name]), path) for tensor in self.inputs}


@dataclass(frozen=True)
class _Folder:
    path: Path
    files: tuple[Path, ...]

    labels = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int], size: int) -> Iterator[tuple[object, Sequence[int]]]:  # noqa: ARG002
        for index in indices:
            loaded = np.load(self.files[index], allow_pickle=False)
            yield dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded, [index]


@dataclass(frozen=True)
class _File:
    """An array of each input in one file: ``members`` by the inputs' names."""

    path: Path
    members: Mapping[str, str | None]
    count: int
    stacked: bool  # whether an item along the first axis is all that the model takes, its own first axis included
    labels: np.ndarray | None

    @classmethod
    def of(cls, path: Path, inputs: Sequence[TensorInput]) -> _File:
        try:
            members = _members(path, [tensor.name for tensor in inputs])
            shapes = {}
            for name, member in members.items():
                with open_array(path, member) as array:
                    shapes[name] = array.shape
            counts, labels = {shape[0] for shape in shapes.values()}, None
            if LABELS not in members and len(counts) == 1:
                labels = read_labels(path, *counts, of="examples")
        except BROKEN as error:
            raise DataError(f"{path} can't be read as a NumPy file: {error}.") from error
        extra = {len(shapes[tensor.name]) - len(tensor.shape) for tensor in inputs}
        if len(counts) > 1 or extra not in ({0}, {1}):
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise DataError(
                f"{path} holds {listed}, and the model takes {' and '.join(map(str, inputs))}: the examples lie along "
                "the first axis of each array."
            )
        return cls(path, members, counts.pop(), extra == {1}, labels)

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int], size: int) -> Iterator[tuple[object, Sequence[int]]]:
        with ExitStack() as stack:
            arrays = {
                name: stack.enter_context(open_array(self.path, member)).items(indices)
                for name, member in self.members.items()
            }
            size = 1 if self.stacked else size
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                items = {name: [next(array) for _ in part] for name, array in arrays.items()}
                yield {name: rows[0] if self.stacked else np.stack(rows) for name, rows in items.items()}, part


def _members(path: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Return the files in an .npz of the arrays called ``names``; a single one may have any name."""
    members = array_names(path)
    others = [member for name, member in members.items() if name != LABELS]
    if len(names) == 1 and names[0] not in members and len(others) == 1:
        return {names[0]: others[0]}
    absent = [name for name in names if name not in members]
    if absent:
        given = ", ".join(filter(None, members)) or "one array without a name"
        raise DataError(f"{path} has no array {absent[0]!r}, which the model takes; it has {given}.")
    return {name: members[name] for name in names}


@dataclass(frozen=True)
class _Function:
    """A function of the user's, found by its name where it runs: in this process, or in a worker."""

    path: Path
    count: int

    labels = None

    @classmethod
    def of(cls, reference: str) -> _Function:
        function = cls(Path(reference), 0)
        return replace(function, count=sum(1 for _ in islice(function.examples(), _MOST)))

    @property
    def files(self) -> Sequence[Path]:
        file = import_user_module(str(self.path).partition(":")[0]).__file__
        return [] if file is None else [Path(file)]

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int], size: int) -> Iterator[tuple[object, Sequence[int]]]:  # noqa: ARG002
        wanted, last = set(indices), max(indices, default=-1)
        for index, example in enumerate(islice(self.examples(), last + 1)):
            if index in wanted:
                yield example, [index]

    def examples(self) -> Iterator[object]:
        """Call the function, and yield its examples."""
        function = function_named(str(self.path))
        try:
            yield from function()
        except Exception as error:  # whatever a function of the user's raises
            raise DataError(f"{self.path} fails: {type(error).__name__}: {first_line(error)}.") from error
