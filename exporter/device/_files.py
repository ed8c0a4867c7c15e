"""Writing so that a power cut leaves the old or the new: whole files, flushed, under their names in one step."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["flush", "flush_tree", "link_target", "open_plain", "point", "remove", "sha256_of", "write", "write_atomic"]

_CHUNK = 1 << 20


def write(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` to an open file."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush a folder and all folders in it, the innermost first; the files were flushed when they were written."""
    for place, _, _ in os.walk(str(folder), topdown=False):
        flush(folder.__class__(place))


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Give ``path`` the content ``data``, or leave it as it is."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        flush(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def point(link: Path, target: str | None) -> None:
    """Make ``link`` a symbolic link to ``target``, in one step and durably; ``None`` removes it."""
    if target is None:
        with suppress(FileNotFoundError):
            link.unlink()
    elif link_target(link) != target:
        temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
        try:
            temporary.symlink_to(target)
            temporary.replace(link)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    flush(link.parent)


def link_target(link: Path) -> str | None:
    """Return what a symbolic link points to, ``None`` where there is none."""
    try:
        return os.readlink(str(link))
    except OSError:
        return None


def open_plain(path: Path) -> int:
    """Open a regular file for reading, never a link, a pipe or a device.

    Raises:
        OSError: There is none of this name, or it is something else.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        OSError: It can't be read.
    """
    digest = hashlib.sha256()
    with os.fdopen(open_plain(path), "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, as far as that goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path), ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
