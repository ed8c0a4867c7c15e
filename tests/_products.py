"""What many tests look at, made once in a run and shared by its workers."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Products:
    """Folders of files and values, made by the first test that asks for them. Who changes a file takes a copy.

    Attributes:
        of_run: What the fixture ``products`` gives, for functions that are not given it.
    """

    of_run: ClassVar[Products]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def folder(self, *key: object, make: Callable[[Path], object]) -> Path:
        """Return the folder of ``key``, whose parts are distinguished by their ``repr``.

        Args:
            key: What the files are, with everything that they depend on.
            make: Writes them into an empty folder.
        """
        folder = self._folder / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                unfinished = Path(tempfile.mkdtemp(dir=self._folder))
                make(unfinished)
                unfinished.rename(folder)
        return folder

    def value(self, *key: object, make: Callable[[], _T]) -> _T:
        """Return a copy of what ``make`` returned when it was first asked for, which can be pickled."""

        def write(folder: Path) -> None:
            (folder / "value").write_bytes(pickle.dumps(make()))

        value: _T = pickle.loads((self.folder(*key, make=write) / "value").read_bytes())
        return value
