"""The files that a job names: those to read exist, and none of them is overwritten, nor one written twice.

Files are compared by identity, not by name: links, other spellings, and names that differ only in case on a file system
that ignores it are one file; so are hard links, since writing would replace only one of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import MissingFileError, RexportError, UsageError
from rexport._words import did_you_mean
from rexport.feeds import is_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "READ",
    "READ_IMAGES",
    "WRITE",
    "require_apart",
    "require_exists",
    "require_files_apart",
    "require_files_exist",
]

_ROLE = "file"
READ = {_ROLE: "read"}
"""Metadata of a field that names a file to read, or a folder of which all is read; text may name something else."""
READ_IMAGES = {_ROLE: "images"}
"""Of one that names a data set, or a folder of one; whatever else lies in it may be written."""
WRITE = {_ROLE: "write"}
"""Of one that names a file or a folder to write."""

_PUBLISHED = ("torchvision:", "hub:")  # weights that are no file here


def require_exists(path: Path, advice: str = "check its name and folder") -> None:
    """Do nothing if there is a file or a folder of this name; what can't be looked at is left to its reader.

    Raises:
        MissingFileError: There is none; the message has the ``advice``, and names that are nearly the same.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        neighbours: list[str] = []
        with suppress(OSError):
            neighbours = [neighbour.name for neighbour in path.parent.iterdir()]
        near = [str(path.with_name(name)) for name in get_close_matches(path.name, neighbours, cutoff=0.8)]
        raise MissingFileError(f"{path} does not exist; {advice}.{did_you_mean(near)}") from error
    except OSError:
        return


def require_files_exist(request: Any) -> None:
    """Do nothing if all files that a request reads exist.

    Raises:
        MissingFileError: One does not.
    """
    for name, role, path in _files_of(request):
        if role == "write" or str(path).startswith(_PUBLISHED) or is_function(path):
            continue
        if name == "model" and not path.suffix:
            require_exists(path, f"`rexport onnx {path} -o {path}.onnx` makes an ONNX file of a network of that name")
        else:
            require_exists(path)


def require_files_apart(request: Any) -> None:
    """Do nothing if all files that a request reads exist, and none that it writes is one of them, or written twice.

    A request whose files bring others with them names those in a property ``files_beside``.

    Raises:
        MissingFileError: A file to read does not exist.
        UsageError: One is read and written, or written twice.
    """
    require_files_exist(request)
    by_role: dict[str, list[Path]] = {"read": [], "images": [], "write": []}
    for _, role, path in _files_of(request):
        by_role[role].append(path)
    outputs = [*by_role["write"], *getattr(request, "files_beside", ())]
    require_apart(outputs, by_role["read"], images=by_role["images"])


def _files_of(request: Any) -> Iterator[tuple[str, str, Path]]:
    """Yield the field's name, the role and the path of each file that a request, and the requests in it, name."""
    for field in fields(request):
        value = getattr(request, field.name)
        if is_dataclass(value):
            yield from _files_of(value)
        elif value is not None and (role := field.metadata.get(_ROLE)):
            items = [value] if isinstance(value, Path | str) else value
            for item in items:
                path = Path(item)
                if isinstance(item, Path) or path.suffix == ".onnx" or path.is_file():  # text may name a network
                    yield field.name, role, path


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path] = (), *, images: Iterable[Path] = ()) -> None:
    """Check that each of ``outputs`` is a separate file, and none of those that are read.

    Args:
        outputs: The files to write, whether they exist or not.
        inputs: The files to read, and with them those that they name: external data of a model, the facts beside an
            engine, the model of deployment settings. All files of a folder count.
        images: Data sets: a file of arrays, or a folder, where only pictures count.

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


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one does not exist yet, or may not be looked at
        return os.path.normcase(os.path.realpath(first)) == os.path.normcase(os.path.realpath(second))


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
