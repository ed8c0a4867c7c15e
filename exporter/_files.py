"""Writing results so that an interruption leaves the old file or none, never half of a new one; and file hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["atomic_path", "cache_folder", "check_writable", "file_sha256", "write_bytes", "write_text"]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(target: Path) -> None:
    """Raise :class:`OutputError` now rather than after minutes of work if ``target`` can't be written."""
    folder = target.parent
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file in it, such as {target / 'model.onnx'}.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is a device or a pipe, which a file would replace; name a file.")
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist; make it with `mkdir -p {folder}`.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"The folder {folder} can't be written to; choose another with -o.")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, and move it there once the block is done.

    The file is flushed to the disk before it is renamed, and the folder after, so that a power cut leaves
    either the old file or the whole new one. If the block raises anything (Ctrl-C included), the file is
    removed and ``target`` is as it was.

    Raises:
        OutputError: The disk is full, or the folder can't be written to.
    """
    check_writable(target)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        _fsync(temporary)
        temporary.replace(target)
        _fsync(target.parent)
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        with suppress(OSError):  # renamed already, or never created
            temporary.unlink()


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` as :func:`atomic_path` does."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` in UTF-8 to ``target`` as :func:`atomic_path` does."""
    write_bytes(target, text.encode())


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``$REXPORT_CACHE``, or ``rexport`` in the user's cache folder."""
    own = os.environ.get("REXPORT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache", "rexport")


def _output_error(target: Path, error: OSError) -> OutputError:
    if error.errno in _NO_ROOM:
        free = shutil.disk_usage(target.parent).free / 2**20
        return OutputError(
            f"{target} was not written: no room in {target.parent} ({free:.0f} MiB free); "
            "free some or choose another place with -o."
        )
    return OutputError(f"{target} was not written: {error.strerror or error}.")


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows can't open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
