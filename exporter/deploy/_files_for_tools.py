"""A few files into a folder, for other tools to take from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._apart import require_apart
from rexport._errors import OutputError
from rexport._files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["write_files"]


def write_files(folder: Path, files: Mapping[str, tuple[bytes, int]], *, inputs: Iterable[Path]) -> tuple[Path, ...]:
    """Write files below a folder, each whole or not at all; other files there stay.

    Args:
        folder: Is made if it is missing.
        files: Content and mode by name, with ``/`` between folders.
        inputs: What they were made of, which stays as it is.

    Raises:
        UsageError: One of the files is one of ``inputs``.
        OutputError: A file or a folder can't be written.
    """
    require_apart([folder / name for name in files], inputs)
    written = []
    for name, (data, mode) in files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target.parent} can't be made: {error.strerror}; name another folder.") from error
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)
            temporary.chmod(mode)
        written.append(target)
    return tuple(written)
