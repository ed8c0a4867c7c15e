"""The names of a network's outputs, from a file that a user has: one a line or a JSON list, or a folder per class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rexport._errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_class_names"]

_LARGEST = 64 * 2**20  # bytes
_MOST_NAMES = 100_000


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read names of classes in the order of the outputs; those of folders are sorted, hidden ones left out.

    A byte order mark, the ends of lines, spaces around names and empty lines are no part of them.

    Raises:
        InputError: It can't be read, or is no list of names.
    """
    try:
        if path.is_dir():
            folders = (child.name for child in path.iterdir() if child.is_dir())
            return tuple(sorted(name for name in folders if not name.startswith(".")))
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is larger than the 64 MiB of class names that are read.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; name a file of class names.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not class names: it is not text in UTF-8.") from error
    if not text.lstrip().startswith("["):
        return tuple(line.strip() for line in text.split("\n") if line.strip())
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no list in JSON ({error}); write one name a line.") from error
    if not all(isinstance(name, str) for name in names) or len(names) > _MOST_NAMES:
        raise InputError(f"{path} is not a list of names; write one name a line.")
    return tuple(names)
