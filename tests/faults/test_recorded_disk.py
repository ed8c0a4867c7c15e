"""The disk that remembers: what it may lose in a power cut, and what ext4 makes of it."""

from __future__ import annotations

import os
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.faults._part import NotHereError
from tests.faults.recorded_disk import Event, RecordedDisk, mounted_image, recorded_disk

if TYPE_CHECKING:
    from pathlib import Path

_MANY = 40


def test_what_was_flushed_stays_and_the_rest_may_go() -> None:
    disk = RecordedDisk(bytearray(2048))
    disk.record()
    disk.events = [Event(0, 0, b"a" * 1024), Event(1, 0, None), Event(2, 1024, b"b" * 1024), Event(3, 0, None)]
    seen = {bytes(disk.after_power_cut(3, Random(number))) for number in range(_MANY)}
    assert all(one[:1024] == b"a" * 1024 for one in seen)
    halves = {one[1024:] for one in seen}
    torn = bytes(512) + b"b" * 512
    assert {bytes(1024), torn, b"b" * 512 + bytes(512), b"b" * 1024} == halves
    assert disk.after_power_cut(3, None)[1024:] == b"b" * 1024
    assert disk.after_power_cut(0, None) == bytes(2048)
    assert {bytes(disk.after_power_cut(4, Random(number))) for number in range(_MANY)} == {b"a" * 1024 + b"b" * 1024}


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts file systems: needs root on Linux")
def test_a_file_that_was_flushed_survives_and_one_that_was_not_does_not(tmp_path: Path) -> None:
    try:
        with recorded_disk(tmp_path, mebibytes=16) as (disk, mount_point):
            os.sync()
            disk.record()
            _write(mount_point / "flushed", flush=True)
            _write(mount_point / "unflushed", flush=False)
            events = len(disk.events)
            folder = os.open(mount_point, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            all_events = len(disk.events)
    except NotHereError as why:
        pytest.skip(str(why))
    for number in range(3):
        with mounted_image(disk.after_power_cut(events, Random(number)), tmp_path) as mounted:
            assert (mounted / "flushed").read_bytes() == b"x" * 20_000
            assert not (mounted / "unflushed").exists()
    with mounted_image(disk.after_power_cut(all_events, None), tmp_path) as mounted:
        assert (mounted / "unflushed").stat().st_size == 0  # its name was flushed, and it was not


def _write(path: Path, *, flush: bool) -> None:
    with path.open("wb") as file:
        file.write(b"x" * 20_000)
        file.flush()
        if flush:
            os.fsync(file.fileno())
