"""The two forms of a bundle: a folder, and one ``.rxb`` file, which is a zip that can be written in one way only.

An ``.rxb`` file is read from its first byte to its last, as it arrives, and needs no seeking. Of every header the agent
knows what it must be, but for the CRC-32 (and, of the two files before the manifest is known, the size): what it reads
must be equal to that, byte for byte. So nothing is parsed that the manifest does not say already, and there is no
second way to read the same file.

    (local header, name, content) × files, (central header, name) × files, end record, and nothing behind it

Numbers are little-endian, the headers those of PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Callable, Iterator, Mapping, NamedTuple

from ._errors import RefusedError, UsageError
from ._files import open_plain

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from ._manifest import FileEntry

__all__ = ["Archive", "Container", "Folder", "Member", "end_record", "open_bundle"]

MANIFEST, SIGNATURE, MODEL_SIGNATURE = "manifest.json", "manifest.sig", "model.sig"
LIMITS = {MANIFEST: 256 << 10, SIGNATURE: 1 << 10, MODEL_SIGNATURE: 256 << 10}
_MAX_ENTRIES = 512  # 64 files in folders of their own, 4 parts deep, and some
_MAX_NAME = 255
_CHUNK = 1 << 20

LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_NEEDED, _MADE_BY, _DATE, _MODE = 20, 0x0314, 0x0021, 0o100644 << 16


class Member(NamedTuple):
    """A file in an ``.rxb``: its name, the CRC-32 and size of its content, and where its local header begins."""

    name: bytes
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        """Return its local header, which its content follows."""
        fixed = (_NEEDED, 0, 0, 0, _DATE, self.crc, self.size, self.size, len(self.name), 0)
        return LOCAL.pack(b"PK\3\4", *fixed) + self.name

    def central(self) -> bytes:
        """Return its entry in the list of files at the end."""
        fixed = (_MADE_BY, _NEEDED, 0, 0, 0, _DATE, self.crc, self.size, self.size, len(self.name))
        return _CENTRAL.pack(b"PK\1\2", *fixed, 0, 0, 0, 0, _MODE, self.offset) + self.name


def end_record(members: list[Member], at: int) -> bytes:
    """Return what ends an ``.rxb`` whose list of files begins at ``at``."""
    size = sum(len(member.central()) for member in members)
    return _END.pack(b"PK\5\6", 0, 0, len(members), len(members), size, at, 0)


class Container:
    """A bundle that is read once, front to back: :meth:`head`, then :meth:`copy`."""

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""

    def head(self) -> tuple[bytes, bytes]:
        """Return the bytes of the manifest and of its signature, neither longer than it may be."""
        raise NotImplementedError

    def copy(self, files: Mapping[str, FileEntry], sink: Callable[[str, Iterator[bytes]], None]) -> None:
        """Give each file's name and content, chunk by chunk, to ``sink``: no byte more than the manifest states.

        Raises:
            RefusedError: The bundle holds other files, or other bytes, than the manifest says.
        """
        raise NotImplementedError


class Archive(Container):
    """An ``.rxb`` file, from a disk or a connection.

    Args:
        descriptor: Open for reading; it is closed in the end.
        patience: Seconds without a byte after which a connection counts as dead.
    """

    def __init__(self, descriptor: int, *, patience: float = 60.0) -> None:
        self._descriptor = descriptor
        self._patience = patience
        self._arrivals = select.poll()
        self._arrivals.register(descriptor, select.POLLIN)
        self._members: list[Member] = []
        self._at = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def head(self) -> tuple[bytes, bytes]:
        """Return the bytes of the manifest and of its signature."""
        return self._small(MANIFEST), self._small(SIGNATURE)

    def copy(self, files: Mapping[str, FileEntry], sink: Callable[[str, Iterator[bytes]], None]) -> None:
        """Give each file to ``sink``; see :meth:`Container.copy`."""
        waiting = sorted(files)
        skipped = MANIFEST
        while True:
            header, name = self._header()
            if name is None:
                break
            if name == MODEL_SIGNATURE and skipped != name and (not waiting or name < waiting[0]):
                skipped = name
                for _ in self._content(header, name, None):
                    pass
            elif waiting and name == waiting[0]:
                sink(waiting.pop(0), _hashed(self._content(header, name, files[name].bytes), name, files[name]))
            else:
                raise _other(next(iter(waiting), "its end"))
        if waiting:
            raise _other(waiting[0])
        self._finish(header)

    def _small(self, name: str) -> bytes:
        header, actual = self._header()
        if actual != name:
            raise RefusedError(f"This is not a bundle: it does not begin with {name}; make or copy it again.")
        return b"".join(self._content(header, name, None))

    def _header(self) -> tuple[bytes, str | None]:
        """Return the next local header and its name; ``None`` for the name at the first central header."""
        fixed = self._read(LOCAL.size)
        if fixed.startswith(b"PK\1\2"):
            return fixed, None
        length = LOCAL.unpack(fixed)[-2]
        if not fixed.startswith(b"PK\3\4") or length > _MAX_NAME:
            raise RefusedError("The bundle is damaged, or not a bundle; make or copy it again.")
        name = self._read(length)
        return fixed + name, name.decode("ascii", "replace")

    def _content(self, header: bytes, name: str, size: int | None) -> Iterator[bytes]:
        """Yield what follows a header that must be the one of this name and size (``None``: any within limits)."""
        crc, header_size = LOCAL.unpack(header[: LOCAL.size])[6:8]
        if size is None:
            size = header_size
            if size > LIMITS[name]:
                raise RefusedError(f"{name} has {size:,} bytes, more than the {LIMITS[name]:,} that it may have.")
        member = Member(name.encode(), crc, size, self._at - len(header))
        if member.local() != header:
            raise _other(name)
        self._members.append(member)
        checksum, remaining = 0, member.size
        while remaining:
            chunk = self._read(min(remaining, _CHUNK))
            remaining -= len(chunk)
            checksum = zlib.crc32(chunk, checksum)
            yield chunk
        if checksum != crc:
            raise _other(name)

    def _finish(self, begun: bytes) -> None:
        directory = b"".join(member.central() for member in self._members)
        expected = directory + end_record(self._members, self._at - len(begun))
        if begun + self._read(len(expected) - len(begun)) != expected:
            raise _other("its list of files")
        if self._some(1):
            raise RefusedError("There is something after the end of the bundle; make or copy it again.")

    def _read(self, size: int) -> bytes:
        parts, remaining = [], size
        while remaining:
            part = self._some(remaining)
            if not part:
                raise RefusedError("The bundle is cut off; copy it again.")
            parts.append(part)
            remaining -= len(part)
        self._at += size
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        if not self._arrivals.poll(self._patience * 1e3):
            raise RefusedError(f"Nothing more of the bundle arrived within {self._patience:.0f} s; send it again.")
        return os.read(self._descriptor, size)


class Folder(Container):
    """A bundle as a folder; links, pipes and devices in it are refused."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def head(self) -> tuple[bytes, bytes]:
        """Return the bytes of the manifest and of its signature."""
        return self._small(MANIFEST), self._small(SIGNATURE)

    def copy(self, files: Mapping[str, FileEntry], sink: Callable[[str, Iterator[bytes]], None]) -> None:
        """Give each file to ``sink``; see :meth:`Container.copy`."""
        names = set(self._names()) - set(LIMITS)
        for name in sorted(names ^ set(files)):
            raise RefusedError(f"The bundle {'holds' if name in names else 'lacks'} {name}, unlike its manifest says.")
        for name in sorted(files):
            sink(name, _hashed(self._content(name, files[name].bytes), name, files[name]))

    def _small(self, name: str) -> bytes:
        descriptor = self._open(name)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(LIMITS[name] + 1)
        if len(content) > LIMITS[name]:
            raise RefusedError(f"{name} has more than the {LIMITS[name]:,} bytes that it may have.")
        return content

    def _content(self, name: str, size: int) -> Iterator[bytes]:
        descriptor = self._open(name)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size != size:
                raise _other(name)
            remaining = size
            while remaining:
                chunk = file.read(min(remaining, _CHUNK))
                if not chunk:
                    raise _other(name)
                remaining -= len(chunk)
                yield chunk

    def _open(self, name: str) -> int:
        try:
            descriptor = open_plain(self._path / name)
        except OSError as error:
            raise RefusedError(f"The bundle's {name} can't be read: {error.strerror}.") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RefusedError(f"The bundle's {name} is no regular file.")
        return descriptor

    def _names(self) -> Iterator[str]:
        """Yield the paths of all files, from the folder on; links and the like are refused."""
        folders, count = [self._path], 0
        while folders:
            folder = folders.pop()
            with os.scandir(str(folder)) as entries:
                for entry in entries:
                    count += 1
                    name = (folder / entry.name).relative_to(self._path).as_posix()
                    if count > _MAX_ENTRIES:
                        raise RefusedError("The bundle holds more files than a bundle may.")
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(folder / entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        yield name
                    else:
                        raise RefusedError(f"The bundle's {name} is no regular file.")


def open_bundle(path: Path) -> Container:
    """Open a bundle in either form.

    Raises:
        UsageError: There is none of this name.
    """
    if path.is_dir():
        return Folder(path)
    try:
        return Archive(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error


def _hashed(chunks: Iterator[bytes], name: str, entry: FileEntry) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != entry.sha256:
        raise RefusedError(f"{name} is not the file that the manifest names: its SHA-256 is another; copy it again.")


def _other(name: str) -> RefusedError:
    return RefusedError(f"The bundle is damaged at {name}, or not as its manifest says; make or copy it again.")
