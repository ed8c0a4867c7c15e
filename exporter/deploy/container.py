"""The two forms of a bundle: a folder, and one ``.rxb`` file.

An ``.rxb`` is a zip file of which nothing is left to choose: members are stored, not compressed, in the order
``manifest.json``, ``manifest.sig``, then by name, with the headers of :mod:`rexport.device._container`. So the same
files are the same bytes, and a reader can refuse every byte that is not as it would have written it.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rexport._apart import require_apart
from rexport._errors import BundleError, DamagedBundleError, OutputError, VerificationError
from rexport._files import atomic_path, check_writable, write_bytes
from rexport.deploy.manifest import require_names
from rexport.device._container import LIMITS, LOCAL, MANIFEST, SIGNATURE, Member, end_record
from rexport.device._manifest import MAX_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from rexport.device._manifest import Manifest

__all__ = [
    "SUFFIX",
    "Contents",
    "is_rxb",
    "read",
    "require_folder",
    "require_target",
    "to_rxb",
    "write",
    "write_files",
    "write_folder",
]

SUFFIX = ".rxb"
_LARGEST = 2**32 - 1  # bytes: what a zip file holds without zip64


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All files of a bundle.

    Attributes:
        manifest: The bytes of ``manifest.json``.
        signature: Of the manifest, in DER.
        files: The others by name, ``model.sig`` among them if there is one.
    """

    manifest: bytes
    signature: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield names and bytes in the order of the ``.rxb``."""
        yield MANIFEST, self.manifest
        yield SIGNATURE, self.signature
        yield from sorted(self.files.items())

    def require_files(self, manifest: Manifest) -> None:
        """Do nothing if the files are those that the manifest states, to the byte.

        Raises:
            VerificationError: One is missing, is too many, or is another.
        """
        present, listed = set(self.files) - set(LIMITS), set(manifest.files)
        for verb, names in (("lacks", listed - present), ("has the unstated", present - listed)):
            if names:
                raise VerificationError(f"The bundle {verb} file {min(names)}; get it again.")
        for name, facts in manifest.files.items():
            data = self.files[name]
            if len(data) != facts.bytes or hashlib.sha256(data).hexdigest() != facts.sha256:
                raise VerificationError(f"{name} is not the file that {MANIFEST} states; get the bundle again.")


def is_rxb(head: bytes) -> bool:
    """Say whether a file that begins with ``head`` may be an ``.rxb``."""
    return head.startswith(Member(MANIFEST.encode(), 0, 0, 0).local()[:14]) and head[30:].startswith(MANIFEST.encode())


def to_rxb(contents: Contents) -> bytes:
    """Return the bytes of the ``.rxb`` file.

    Raises:
        BundleError: It has names that no bundle can have, or more than 4 GiB.
    """
    files = list(contents.members())
    require_names([name for name, _ in files])
    if sum(len(data) + 256 for _, data in files) > _LARGEST:
        raise BundleError("The bundle has more than the 4 GiB that one holds; leave engines out.")
    members: list[Member] = []
    parts: list[bytes] = []
    offset = 0
    for name, data in files:
        members.append(Member(name.encode("ascii"), zlib.crc32(data), len(data), offset))
        parts += [members[-1].local(), data]
        offset += len(parts[-2]) + len(data)
    return b"".join([*parts, *(member.central() for member in members), end_record(members, offset)])


def require_target(path: Path) -> None:
    """Raise :class:`OutputError` now rather than after the work if a bundle can't be written to ``path``.

    A name that ends in ``.rxb`` is a file's; any other is a folder's, which must be empty or not exist.
    """
    if path.suffix == SUFFIX:
        check_writable(path)
    else:
        require_folder(path)


def require_folder(path: Path, *, parents: bool = False) -> None:
    """Raise :class:`OutputError` if :func:`write_folder` can't write to ``path``; make its ``parents`` if asked."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; name a folder, or for a bundle a file that ends in {SUFFIX}.")
    if path.is_symlink():
        raise OutputError(f"{path} is a link; name a folder of its own.")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        full = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise OutputError(f"{path} can't be used: {error.strerror}; name another folder.") from error
    if full:
        raise OutputError(f"{path} is not empty; name another folder, or empty it.")
    check_writable(_beside(path))


def write(contents: Contents, path: Path) -> None:
    """Write a bundle, whole or not at all: one file if ``path`` ends in ``.rxb``, otherwise a folder.

    Raises:
        OutputError: It can't be written.
        BundleError: As :func:`to_rxb`.
    """
    require_target(path)
    data = to_rxb(contents)
    if path.suffix == SUFFIX:
        write_bytes(path, data)
    else:
        write_folder(dict(contents.members()), path)


def write_folder(files: Mapping[str, bytes], path: Path) -> None:
    """Write a folder of ``files``, by their names in it, whole or not at all; it is empty, or does not exist.

    Raises:
        OutputError: It can't be written.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, data)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} was not written: {error.strerror}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


def read(path: Path) -> Contents:
    """Read a bundle, folder or ``.rxb``, strictly; neither its signature nor its hashes are looked at yet.

    Raises:
        DamagedBundleError: It begins as an ``.rxb``, and does not go on as one.
        BundleError: It can't be read, or is not as a bundle has to be.
    """
    try:
        if path.is_dir():
            return _contents(path, _read_folder(path))
        if path.stat().st_size > _LARGEST:
            raise BundleError(f"{path} has more than the 4 GiB that a bundle holds.")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}; name a bundle.") from error
    try:
        contents = _contents(path, _stored(path, data))
        is_whole = to_rxb(contents) == data
    except BundleError:
        if not is_rxb(data):
            raise
        is_whole = False
    if not is_whole:
        raise DamagedBundleError(f"{path} is damaged, or not a bundle; get it again.")
    return contents


def _contents(path: Path, members: dict[str, bytes]) -> Contents:
    for name in (MANIFEST, SIGNATURE):
        if name not in members:
            raise BundleError(f"{path} is not a bundle: it has no {name}.")
    return Contents(manifest=members.pop(MANIFEST), signature=members.pop(SIGNATURE), files=members)


def _read_folder(path: Path) -> dict[str, bytes]:
    sizes: dict[str, int] = {}
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise BundleError(f"{path} is not a bundle: {name} in it is a link or a device.")
        if entry.is_file():
            sizes[name] = entry.stat().st_size
        if len(sizes) > MAX_FILES:
            raise BundleError(f"{path} is not a bundle: it has more than {MAX_FILES} files.")
    _require_sizes(path, sizes)
    return {name: (path / name).read_bytes() for name in sorted(sizes)}


def _require_sizes(path: Path, sizes: Mapping[str, int]) -> None:
    try:
        require_names(list(sizes))
    except BundleError as error:
        raise BundleError(f"{path} is not a bundle: {error}") from error
    large = next((name for name, size in sizes.items() if size > LIMITS.get(name, _LARGEST)), None)
    if large is not None or sum(sizes.values()) > _LARGEST:
        raise BundleError(f"{path} is not a bundle: {large or 'what is in it'} is larger than a device takes.")


def _stored(path: Path, data: bytes) -> dict[str, bytes]:
    """Return the members that the local headers name; that these are as they should be is for the caller to see."""
    members: dict[str, bytes] = {}
    offset = 0
    while data[offset : offset + 4] == b"PK\x03\x04" and len(data) - offset >= LOCAL.size:
        *_, size, _, name_length, _ = LOCAL.unpack_from(data, offset)
        start = offset + LOCAL.size + name_length
        name = data[offset + LOCAL.size : start]
        if not name.isascii() or name.decode() in members or start + size > len(data) or len(members) >= MAX_FILES:
            break
        members[name.decode()] = data[start : start + size]
        offset = start + size
    if not members:
        raise BundleError(f"{path} is not a bundle; make one with `rexport bundle`.")
    _require_sizes(path, {name: len(content) for name, content in members.items()})
    return members


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
