"""What is written is never what is read: one function decides it for every command, and for jobs from Python.

Files are compared by what they are, not by what they are called: links, other spellings, and names that differ in case
where the file system tells them not apart, are one file; so are hard links, of which only one would be replaced.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._errors import RexportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["require_apart"]


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path] = (), *, images: Iterable[Path] = ()) -> None:
    """Do nothing if each of ``outputs`` is a file of its own, and none of those that are read.

    Args:
        outputs: What is to be written, whether it exists or not.
        inputs: Files to read, and with them what they name: external data of a model, the facts beside an engine, the
            model of deployment settings. Of a folder, all is read.
        images: Data sets: a file of arrays, or a folder of which only the pictures are read.

    Raises:
        UsageError: One is read, or is written twice.
    """
    written, read, pictures = tuple(outputs), tuple(inputs), tuple(images)
    for index, output in enumerate(written):
        for earlier in written[:index]:
            if _same(earlier, output):
                raise UsageError(f"{_both(earlier, output)} to be written twice; name two files.")
    if any(output.exists() for output in written):  # else no file that an input names can be meant
        read = tuple(chain.from_iterable((path, *_named_by(path)) for path in read))
    for output in written:
        for path in (*read, *pictures):
            if _same(output, path):
                raise UsageError(f"{_both(output, path)} both to be read and to be written; name another file.")
        for folder in read:
            if _lies_in(output, folder):
                raise UsageError(f"{output} lies in {folder}, which is to be read as it is; name another place.")
        for folder in pictures:
            picture = _picture(output, folder)
            if picture is not None:
                raise UsageError(f"{_both(output, picture)} one of the pictures to be read; name another file.")


def _both(output: Path, path: Path) -> str:
    if str(output) == str(path):
        return f"{output} is"
    return f"{output} is the same file as {path}, which is"


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one does not exist yet, or may not be looked at
        return os.path.normcase(os.path.realpath(path)) == os.path.normcase(os.path.realpath(other))


def _named_by(path: Path) -> Iterator[Path]:
    """Yield the files that are read because ``path`` is; none if it can't be read, as its reader will say."""
    from rexport.deployment_settings import load_settings
    from rexport.engine_file import facts_path, is_engine, read_facts

    suffixes = {path.suffix.lower(), Path(os.path.realpath(path)).suffix.lower()}
    if ".onnx" in suffixes:
        from rexport.model_file import external_files

        yield from external_files(path)
    with suppress(RexportError):
        if not is_engine(path):
            read_facts(path)  # an ONNX file that holds an engine has facts; a file beside another is none
        yield facts_path(path)
    if ".toml" in suffixes:
        with suppress(RexportError):
            model = load_settings(path).model_path(path)
            yield from (model, *_named_by(model))


def _lies_in(path: Path, folder: Path) -> bool:
    if not folder.is_dir():
        return False
    entry, target = Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))
    return any(_same(parent, folder) for parent in (*entry.parents, *target.parents))


def _picture(path: Path, folder: Path) -> Path | None:
    """Return the picture in ``folder`` that ``path`` is, if it is one; a folder is searched for names of pictures."""
    from rexport.preprocessing import IMAGE_SUFFIXES

    suffixes = {path.suffix.lower(), Path(os.path.realpath(path)).suffix.lower()}
    if not suffixes & IMAGE_SUFFIXES or not path.exists():
        return None
    files = chain.from_iterable(folder.glob(pattern) for pattern in ("*", "*/*", "*/*/*"))  # DIR/train/<class>/<image>
    return next((file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and _same(file, path)), None)
