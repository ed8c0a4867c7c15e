"""A flipped byte anywhere in a bundle, or its end anywhere: refused before a parser or runtime sees it.

Some by default; with ``-m deep`` every byte and every end of an ``.rxb``, and many of a folder's.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rexport.deploy.container import to_rxb
from rexport.device import _install, _manifest
from rexport.device._container import Folder
from rexport.device._errors import AgentError, RefusedError
from rexport.device._install import install
from tests._deep import deep
from tests.device._vendor import archive, openssl_once, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rexport.deploy.container import Contents
    from rexport.device._container import Container
    from rexport.device._self_check import Checked, Version
    from rexport.device._state import Device
    from tests.faults.vendor import Vendor


class _Spy:
    """What happened in this process: programs that were started, and what was parsed or checked."""

    def __init__(self) -> None:
        self.watching = False
        self.started: list[str] = []
        self.parsed: list[bytes] = []
        self.checked = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "ctypes.dlopen"):
            self.started.append(str(arguments[0]).rsplit("/", 1)[-1])

    def check(self, version: Version, *, quick: bool = False) -> Checked:
        self.checked += 1
        raise RefusedError("This bundle came as far as the self-check.")


@pytest.fixture(scope="module")
def _hooked() -> _Spy:
    spy = _Spy()
    sys.addaudithook(spy.hook)  # for the rest of this process
    return spy


@pytest.fixture
def spy(_hooked: _Spy, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Spy]:
    _hooked.started, _hooked.parsed, _hooked.checked, _hooked.watching = [], [], 0, True
    parse = _manifest.parse_manifest

    def parse_and_tell(data: bytes) -> Any:
        _hooked.parsed.append(data)
        return parse(data)

    monkeypatch.setattr(_install, "parse_manifest", parse_and_tell)
    openssl_once(monkeypatch)  # thousands of these bundles are right up to here
    yield _hooked
    _hooked.watching = False


def _refuse(device: Device, bundle: Container, contents: Contents, spy: _Spy) -> None:
    with bundle, pytest.raises(AgentError):
        install(device, bundle, check=spy.check)
    assert spy.checked == 0
    assert set(spy.parsed) <= {contents.manifest}
    assert set(spy.started) <= {"openssl"}
    assert device.active is None
    assert not device.versions.exists() or not list(device.versions.iterdir())
    assert not device.staging.exists() or not list(device.staging.iterdir())


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]


@contextmanager
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


def test_the_spy_sees_what_is_not_refused(vendor: Vendor, device: Device, spy: _Spy) -> None:
    contents = vendor.bundle()
    with pytest.raises(RefusedError, match="as far as the self-check"):
        install(device, archive(contents), check=spy.check)
    assert (spy.checked, spy.parsed) == (1, [contents.manifest])
    assert "openssl" in spy.started


@pytest.mark.parametrize("step", [23, *deep(1)])
def test_flipped_bytes_of_an_rxb(
    vendor: Vendor, device: Device, spy: _Spy, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = vendor.bundle()
    data = to_rxb(contents)
    with _without_waiting_for_the_disk(monkeypatch):
        for position in range(0, len(data), step):
            _refuse(device, archive(_flipped(data, position)), contents, spy)


@pytest.mark.parametrize("step", [41, *deep(1)])
def test_truncations_of_an_rxb(
    vendor: Vendor, device: Device, spy: _Spy, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = vendor.bundle()
    data = to_rxb(contents)
    with _without_waiting_for_the_disk(monkeypatch):
        for length in range(0, len(data), step):
            _refuse(device, archive(data[:length]), contents, spy)


@pytest.mark.parametrize(("step", "openssl_step"), [(61, 397), *deep((7, 131))])
def test_flipped_bytes_of_a_folder(
    tmp_path: Path,
    vendor: Vendor,
    device: Device,
    spy: _Spy,
    step: int,
    openssl_step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No checksum stands before the signature here, so that each flip in the manifest asks openssl anew."""
    contents = vendor.bundle()
    folder = write(contents, tmp_path / "bundle")
    with _without_waiting_for_the_disk(monkeypatch):
        for name, data in contents.members():
            each = openssl_step if name == "manifest.json" else 9 if name == "manifest.sig" else step
            for position in range(0, len(data), each):
                (folder / name).write_bytes(_flipped(data, position))
                _refuse(device, Folder(folder), contents, spy)
                (folder / name).write_bytes(data[:position])
                _refuse(device, Folder(folder), contents, spy)
            (folder / name).write_bytes(data)


def test_members_in_another_order_twice_or_compressed(vendor: Vendor, device: Device, spy: _Spy) -> None:
    import io
    import zipfile

    contents = vendor.bundle()
    members = list(contents.members())
    for order, compression in (
        (members, zipfile.ZIP_DEFLATED),
        (members[::-1], zipfile.ZIP_STORED),
        ([*members[:2], *members[:1:-1]], zipfile.ZIP_STORED),
        ([*members, members[-1]], zipfile.ZIP_STORED),
        ([*members, ("extra", b"")], zipfile.ZIP_STORED),
        (members[:-1], zipfile.ZIP_STORED),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as file:
            for name, data in order:
                member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                member.create_system, member.external_attr, member.compress_type = 3, 0o100644 << 16, compression
                with pytest.warns(UserWarning, match="Duplicate") if name in file.namelist() else _nothing():
                    file.writestr(member, data)
        _refuse(device, archive(buffer.getvalue()), contents, spy)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
