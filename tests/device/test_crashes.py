"""A power cut, a full disk or a broken one at every single call: the version from before is active, or the new one."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from rexport.device import _state
from rexport.device._errors import AgentError, InstallError, UnusableError
from rexport.device._install import install, load, roll_back
from rexport.device._state import Device
from tests.device._vendor import device_of, openssl_once
from tests.faults.vendor import archive, passed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rexport.device._self_check import Checked, Version
    from tests.faults.vendor import Vendor

_CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir")


_FSYNC = os.fsync


class _PowerCut(BaseException):
    """The agent is no more."""


class _Faults:
    """Counts the calls that change the disk; from the n-th one on, none works (a cut), or that one fails (an error)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, at: int, error: int | None) -> None:
        self.calls, self._at, self._error, self._root = 0, at, error, str(root)
        for name in _CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            paths = [str(argument) for argument in arguments if not isinstance(argument, int | bytes | memoryview)]
            if paths and not any(self._root in path for path in paths):
                return call(*arguments, **named)  # of somebody else: openssl's pipes, temporary files
            self.calls += 1
            if self._error is None and self.calls >= self._at:
                raise _PowerCut
            if self.calls == self._at:
                raise OSError(self._error, os.strerror(self._error or 0), *paths[:1])
            return None if call is _FSYNC else call(*arguments, **named)  # nothing here outlives the page cache

        return counted


def _with_two_versions(folder: Path, vendor: Vendor) -> Device:
    device = device_of(folder, vendor)
    for version in (1, 2):
        with device.locked(0):
            install(device, archive(vendor.bundle(version)), check=passed)
    return device


def _install_3(device: Device, vendor: Vendor) -> None:
    with device.locked(0):
        install(device, archive(vendor.bundle(3)), check=passed)


def _roll_back(device: Device, vendor: Vendor) -> None:
    with device.locked(0):
        roll_back(device, check=passed)


@pytest.fixture
def before(tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device with the versions 1 and 2."""
    openssl_once(monkeypatch)
    return _with_two_versions(tmp_path, vendor)


@pytest.mark.parametrize(
    ("error", "step"), [(None, 1), (errno.ENOSPC, 3), (errno.EIO, 7)], ids=["power-cut", "ENOSPC", "EIO"]
)
@pytest.mark.parametrize(("act", "new"), [(_install_3, 3), (_roll_back, 1)], ids=["install", "rollback"])
def test_every_call(
    before: Device, vendor: Vendor, act: Callable[[Device, Vendor], None], new: int, error: int | None, step: int
) -> None:
    calls, outcomes = _sweep(before, vendor, act, new, error, step)
    assert calls > 15
    assert 2 in outcomes


def test_the_sweep_sees_a_switch_in_two_steps(before: Device, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_two_steps(link: Path, target: str | None) -> None:
        link.unlink(missing_ok=True)
        if target is not None:
            link.symlink_to(target)

    monkeypatch.setattr(_state, "point", in_two_steps)
    with pytest.raises(UnusableError, match="No version is active"):
        _sweep(before, vendor, _roll_back, 1, None, 1)


@pytest.mark.slow
def test_the_sweep_sees_a_switch_that_is_not_announced(
    before: Device, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Device.write
    monkeypatch.setattr(
        Device, "write", lambda self, **changes: None if "pending" in changes else write(self, **changes)
    )
    with pytest.raises(AssertionError):
        _sweep(before, vendor, _roll_back, 1, None, 1)


def _sweep(
    before: Device, vendor: Vendor, act: Callable[[Device, Vendor], None], new: int, error: int | None, step: int
) -> tuple[int, set[int]]:
    """Let every ``step``-th call fail, each on a device of its own; return how many there are, and what was active."""
    at, reached, outcomes = 1, True, set()
    while reached:
        device = Device(before.root.parent / str(at))
        shutil.copytree(before.root, device.root, symlinks=True)
        with pytest.MonkeyPatch.context() as patch:
            faults = _Faults(patch, device.root, at, error)
            try:
                act(device, vendor)
                done = True
            except (_PowerCut, AgentError, OSError):
                done = False
        reached = faults.calls >= at
        version = _require_whole(Device(device.root), new, done=done)
        outcomes.add(version)
        if version == 2:  # try again
            act(device, vendor)
            assert load(device).manifest.version == new
            assert str(device.previous).startswith("tiny-2-")
        shutil.rmtree(device.root)
        at += step
    return at, outcomes


def _require_whole(device: Device, new: int, *, done: bool) -> int:
    """The agent starts anew; return the version that it finds active."""
    assert load(device).manifest.version in (2, new)  # even before it put anything right
    with device.locked(0):
        version = load(device).manifest.version
        assert version == new if done else version in (2, new)
        state = device.read()
        assert (state["pending"], state["active"], state["previous"]) == (None, device.active, device.previous)
        assert (state["last"]["version"] == new) == (version == new)
        assert not list(device.staging.iterdir())
        assert not [path.name for path in device.root.glob(".*")]
    return version


def test_a_switch_that_fails_its_check_in_place_is_undone(vendor: Vendor, tmp_path: Path) -> None:
    device = _with_two_versions(tmp_path, vendor)
    seen = []

    def fails_in_place(version: Version, *, quick: bool = False) -> Checked:
        seen.append((version.folder.name, device.active))
        if quick:
            raise InstallError("It failed in place.")
        return passed(version)

    before = device.active, device.previous
    with pytest.raises(InstallError, match=r"failed in place\. tiny-2-\w+ is still active"):
        install(device, archive(vendor.bundle(3)), check=fails_in_place)
    assert [name for name, _ in seen] == [seen[1][1], "active"]
    assert (device.active, device.previous) == before
    state = device.read()
    assert (state["pending"], state["highest"], state["failed"][-1]["version"]) == (None, 2, 3)
    assert not [path for path in device.versions.iterdir() if "tiny-3" in path.name]


def test_ctrl_c_in_the_middle_puts_everything_back(vendor: Vendor, tmp_path: Path) -> None:
    device = _with_two_versions(tmp_path, vendor)
    before = device.active, device.previous

    def interrupted(version: Version, *, quick: bool = False) -> Checked:
        if quick:
            raise KeyboardInterrupt
        return passed(version)

    with pytest.raises(KeyboardInterrupt), device.locked(0):
        install(device, archive(vendor.bundle(3)), check=interrupted)
    assert (device.active, device.previous, device.read()["pending"]) == (*before, None)
