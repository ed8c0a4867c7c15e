"""A disk that remembers every write and every flush, so that a power cut at any moment can be made afterwards.

Linux mounts one file of a small FUSE server (https://www.kernel.org/doc/html/latest/filesystems/fuse.html), a loop
device reads and writes that file, and an ext4 file system lies on the loop device. What reaches the server is what a
disk would see: blocks in the order in which they are sent, and flushes (``FUSE_FSYNC``, which the loop device sends for
``REQ_OP_FLUSH`` and after writes that bypass the cache). A disk may lose or reorder what was written after its last
flush, and nothing before it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from tests.faults._part import NotHereError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Event", "RecordedDisk", "mounted_image", "recorded_disk"]

_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_LARGEST_WRITE = 1 << 17
_BUFFER = _LARGEST_WRITE + (1 << 12)
_GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 3, 4, 14, 15, 16
_STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT = 17, 18, 20, 25, 26
_NO_REPLY = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET
_SECTOR = 512


@dataclass(frozen=True)
class Event:
    """A write of ``data`` at ``offset``, or with ``data=None`` a flush; ``at`` is by ``time.monotonic()``."""

    at: float
    offset: int
    data: bytes | None


@dataclass
class RecordedDisk:
    """The disk's content now, what it was at :meth:`record`, and what happened since."""

    content: bytearray
    events: list[Event] = field(default_factory=list)
    before: bytes = b""

    def record(self) -> None:
        """Begin anew."""
        self.before = bytes(self.content)
        self.events = []

    def after_power_cut(self, kept: int, random: Random | None) -> bytearray:
        """Return the disk after a power cut when the first ``kept`` events had happened.

        Args:
            kept: How many.
            random: Chooses which of the sectors that no flush followed are lost; ``None`` loses none.
        """
        disk = bytearray(self.before)
        events = self.events[:kept]
        flushed = max((index for index, event in enumerate(events) if event.data is None), default=-1)
        for index, event in enumerate(events):
            if event.data is None:
                continue
            if index < flushed or random is None:
                disk[event.offset : event.offset + len(event.data)] = event.data
                continue
            lost = random.choice((0.0, 0.5, 1.0))
            for start in range(0, len(event.data), _SECTOR):
                if random.random() >= lost:
                    sector = event.data[start : start + _SECTOR]
                    disk[event.offset + start : event.offset + start + len(sector)] = sector
        return disk


class _Server(Thread):
    """Answers the kernel's requests for the one file, until it is unmounted."""

    def __init__(self, descriptor: int, disk: RecordedDisk) -> None:
        super().__init__(daemon=True)
        self._descriptor, self._disk = descriptor, disk

    def run(self) -> None:
        """Answer."""
        while True:
            try:
                request = os.read(self._descriptor, _BUFFER)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode in _NO_REPLY:
                continue
            code, reply = self._answer(opcode, memoryview(request)[_IN.size :])
            with suppress(OSError):
                os.write(self._descriptor, _OUT.pack(_OUT.size + len(reply), -code, unique) + reply)

    def _answer(self, opcode: int, body: memoryview) -> tuple[int, bytes]:
        disk = self._disk.content
        if opcode == _INIT:
            ahead, flags = struct.unpack_from("<8xII", body)
            mine = flags & (1 << 5)  # FUSE_BIG_WRITES
            return 0, struct.pack("<IIIIHHIIHHI28x", 7, 31, ahead, mine, 12, 10, _LARGEST_WRITE, 1, 0, 0, 0)
        if opcode in (_GETATTR, _SETATTR):
            mode = stat.S_IFREG | 0o600
            attributes = struct.pack(
                "<6Q10I", 1, len(disk), len(disk) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0
            )
            return 0, struct.pack("<QII", 3600, 0, 0) + attributes
        if opcode == _OPEN:
            return 0, struct.pack("<QIi", 1, 1, 0)  # FOPEN_DIRECT_IO: no cache between the disk and here
        if opcode == _READ:
            offset, size = struct.unpack_from("<8xQI", body)
            return 0, bytes(disk[offset : offset + size])
        if opcode == _WRITE:
            offset, size = struct.unpack_from("<8xQI", body)
            data = bytes(body[40 : 40 + size])
            disk[offset : offset + size] = data
            self._disk.events.append(Event(time.monotonic(), offset, data))
            return 0, struct.pack("<II", size, 0)
        if opcode == _FSYNC:
            self._disk.events.append(Event(time.monotonic(), 0, None))
            return 0, b""
        if opcode == _STATFS:
            return 0, struct.pack("<5Q4I24x", len(disk) // 4096, 0, 0, 1, 0, 4096, 255, 4096, 0)
        if opcode in (_FLUSH, _RELEASE):
            return 0, b""
        return errno.ENOSYS, b""


@contextmanager
def recorded_disk(folder: Path, *, mebibytes: int = 48) -> Iterator[tuple[RecordedDisk, Path]]:
    """Yield a recorded disk and where its ext4 file system is mounted.

    Raises:
        NotHereError: This system mounts no FUSE, loop or ext4 file systems.
    """
    image, place, mount_point = (folder / name for name in ("image", "disk", "mounted"))
    image.write_bytes(bytes(mebibytes << 20))
    _mkfs(image)
    disk = RecordedDisk(bytearray(image.read_bytes()))
    image.unlink()
    place.touch()
    mount_point.mkdir()
    try:
        descriptor = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        raise NotHereError(f"FUSE is not available ({error.strerror}).") from error
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={descriptor},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0,allow_other"
    if libc.mount(b"rexport", os.fsencode(place), b"fuse", 0, options.encode()):
        os.close(descriptor)
        raise NotHereError(f"FUSE can't be mounted ({os.strerror(ctypes.get_errno())}).")
    server = _Server(descriptor, disk)
    server.start()
    try:
        with _mounted(place, mount_point):
            yield disk, mount_point
    finally:
        _unmount(place)  # the loop device lets go of it somewhat later than it is unmounted itself
        server.join(timeout=10)
        os.close(descriptor)


@contextmanager
def mounted_image(content: bytes | bytearray, folder: Path) -> Iterator[Path]:
    """Yield where a disk of this content is mounted; mounting it replays its journal."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        image, mount_point = Path(name) / "image", Path(name) / "mounted"
        image.write_bytes(content)
        mount_point.mkdir()
        with _mounted(image, mount_point):
            yield mount_point


@contextmanager
def _mounted(image: Path, mount_point: Path) -> Iterator[None]:
    done = subprocess.run(
        ["mount", "-t", "ext4", "-o", "loop", str(image), str(mount_point)], capture_output=True, text=True
    )
    if done.returncode:
        raise NotHereError(f"An ext4 file system can't be mounted ({done.stderr.strip()}).")
    try:
        yield
    finally:
        _unmount(mount_point)  # a process that was killed may not be gone yet


def _unmount(place: Path) -> None:
    """Unmount what is about to be let go of."""
    for _ in range(100):
        done = subprocess.run(["umount", str(place)], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{place} stays mounted: {done.stderr.strip()}")


def _mkfs(image: Path) -> None:
    options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]
    done = subprocess.run(["mkfs.ext4", *options, str(image)], capture_output=True, text=True)
    if done.returncode:
        raise NotHereError(f"mkfs.ext4 failed ({done.stderr.strip()}).")
