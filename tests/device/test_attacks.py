"""The attacks that The Update Framework names (its specification's section 1.5.2, and python-tuf's SECURITY.md)."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rexport.deploy.container import to_rxb
from rexport.device import _install
from rexport.device._container import Archive, Folder
from rexport.device._errors import RefusedError, UnusableError
from rexport.device._install import install, load
from rexport.device._keys import add_key, remove_key
from tests.device._vendor import archive, device_of, passed, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rexport.deploy.container import Contents
    from rexport.device._state import Device
    from tests.device._vendor import Vendor


def _refuse(device: Device, contents: Contents | bytes, message: str, kind: type[Exception] = RefusedError) -> None:
    before = device.active, device.read()["highest"], sorted(device.versions.glob("*"))
    with pytest.raises(kind, match=message):
        install(device, archive(contents), check=passed)
    assert (device.active, device.read()["highest"], sorted(device.versions.glob("*"))) == before
    assert not list(device.staging.glob("*"))


def test_arbitrary_software(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    stranger = vendor.other(tmp_path)
    _refuse(device, stranger.bundle(), "by none of the trusted keys")
    honest = vendor.bundle()
    _refuse(device, replace(honest, signature=stranger.bundle().signature), "by none of the trusted keys")
    _refuse(device, replace(honest, signature=b""), "by none of the trusted keys")
    (tmp_path / "new").mkdir()
    _refuse(device_of(tmp_path / "new"), honest, "trusts no key yet")


def test_rollback_to_an_older_version(vendor: Vendor, device: Device) -> None:
    install(device, archive(vendor.bundle(7)), check=passed)
    _refuse(device, vendor.bundle(6), "version 6, and 7 was installed before")
    _refuse(device, vendor.bundle(7, lambda m: m.update(expires="2999-01-01T00:00:00Z")), "Another bundle of version 7")


def test_freeze_on_an_expired_version(vendor: Vendor, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(device, vendor.bundle(1, lambda m: m.update(expires="2026-01-01T00:00:00Z")), "expired on 2026-01-01 00:00")
    late = vendor.bundle(1, lambda m: m.update(expires="2999-01-01T00:00:00Z"))

    class Clock(_install.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(1970, 1, 2, tzinfo=tz)

    monkeypatch.setattr(_install, "datetime", Clock)
    _refuse(device, late, "clock says 1970-01-02", UnusableError)
    monkeypatch.undo()
    assert install(device, archive(late), check=passed).changed


def test_mix_and_match(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    first, second = vendor.bundle(1), vendor.bundle(2, input=vendor.files["golden/input.npy"][::-1])
    mixed = replace(second, files=first.files)
    assert len(to_rxb(mixed)) == len(to_rxb(second))
    _refuse(device, mixed, "SHA-256 is another")
    _refuse(device, replace(first, manifest=second.manifest), "by none of the trusted keys")
    with pytest.raises(RefusedError, match="SHA-256 is another"):
        install(device, Folder(write(mixed, tmp_path / "mixed")), check=passed)


def test_endless_data(vendor: Vendor, device: Device) -> None:
    honest = to_rxb(vendor.bundle())
    _refuse(device, honest + b"\0", "behind the bundle's end")
    _refuse(device, vendor.bundle(1, lambda m: m["files"]["model.onnx"].update(bytes=10)), r"damaged at model\.onnx")
    _refuse(device, vendor.bundle(1, lambda m: m["files"]["model.onnx"].update(bytes=1 << 40)), "whole number from 0")
    for name, size in (("manifest.json", 300 << 10), ("manifest.sig", 2 << 10)):
        position = honest.index(name.encode()) - 30
        long = bytearray(honest)
        long[position + 18 : position + 26] = size.to_bytes(4, "little") * 2
        _refuse(device, bytes(long), rf"{name} has [\d,]+ bytes, more than")


def test_endless_data_that_comes_for_ever(vendor: Vendor, device: Device) -> None:
    """No byte is taken beyond what was signed, however many more there are."""
    reading, writing = os.pipe()
    sent = 0

    def pour() -> None:
        nonlocal sent
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            try:
                sent += pipe.write(to_rxb(vendor.bundle())) or 0
                while True:
                    sent += pipe.write(bytes(1 << 16)) or 0
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=pour)
    thread.start()
    with Archive(reading) as bundle, pytest.raises(RefusedError, match="behind the bundle's end"):
        install(device, bundle, check=passed)
    thread.join(10)
    assert not thread.is_alive()
    assert sent < len(to_rxb(vendor.bundle())) + (1 << 20)


def test_slow_retrieval(vendor: Vendor, device: Device) -> None:
    reading, writing = os.pipe()
    os.write(writing, to_rxb(vendor.bundle())[:2000])  # and nothing more, without closing
    with Archive(reading, patience=0.1) as bundle, pytest.raises(RefusedError, match="Nothing more of the bundle"):
        install(device, bundle, check=passed)
    os.close(writing)


@pytest.mark.parametrize(
    ("edit", "message", "kind"),
    [
        (lambda m: m["target"].update(system="windows"), "is for windows", UnusableError),
        (lambda m: m["target"].update(machines=["riscv64", "s390x"]), "riscv64 or s390x", UnusableError),
        (lambda m: m["target"].update(runtimes={"onnxruntime": [">=99.0"]}), "needs onnxruntime>=99.0", UnusableError),
        (lambda m: m["target"].update(runtimes={"onnxruntime": [">=1.2", "<1.3"]}), "<1.3", UnusableError),
        (lambda m: m.update(name="other"), "is of other, and", RefusedError),
    ],
)
def test_wrong_software(
    vendor: Vendor, device: Device, edit: Callable[[dict[str, Any]], None], message: str, kind: type[Exception]
) -> None:
    install(device, archive(vendor.bundle(1)), check=passed)
    _refuse(device, vendor.bundle(2, edit), message, kind)


def test_fast_forward_ends_with_the_key_that_did_it(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    """Who stole a key takes the highest version of all; once the key is gone, versions go on where they were."""
    new = vendor.other(tmp_path)
    install(device, archive(vendor.bundle(2)), check=passed)
    add_key(device.keys, new.key.public_pem(), "new")
    install(device, archive(new.bundle(3)), check=passed)
    install(device, archive(vendor.bundle(2**31 - 1)), check=passed)  # the thief's
    _refuse(device, new.bundle(4), "2147483647 was installed before")
    remove_key(device.keys, vendor.key.public().fingerprint()[:12])
    _refuse(device, new.bundle(2), "3 was installed before")
    assert install(device, archive(new.bundle(4)), check=passed).manifest.version == 4
    assert device.read()["highest"] == 4


def test_key_rotation_and_compromise(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    new = vendor.other(tmp_path)
    install(device, archive(vendor.bundle(1)), check=passed)
    _refuse(device, new.bundle(2), "by none of the trusted keys")
    add_key(device.keys, new.key.public_pem(), "new")
    install(device, archive(new.bundle(2)), check=passed)
    remove_key(device.keys, vendor.key.public().fingerprint())
    assert load(device).manifest.version == 2
    _refuse(device, vendor.bundle(3), "by none of the trusted keys")
    with pytest.raises(RefusedError, match="by none of the trusted keys"):  # nor back to what the old key signed
        _install.roll_back(device, check=passed)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema="rexport.bundle/2"), "its schema is 'rexport.bundle/2'"),
        (lambda m: m.update(run_me="rm"), "unknown key 'run_me'"),
        (lambda m: m.pop("limits"), "lacks the key 'limits'"),
        (lambda m: m.update(name="../../etc"), "name can't be"),
        (lambda m: m.update(version=True), "whole number from 1"),
        (lambda m: m.update(version=0), "whole number from 1"),
        (lambda m: m.update(expires="tomorrow"), "expires can't be"),
        (lambda m: m.update(expires="2027-02-31T00:00:00Z"), "day is out of range"),
        (lambda m: m.update(model="golden"), "not among its files"),
        (lambda m: m["golden"].update(min_sqnr_db=float("nan")), "NaN is no number"),
        (lambda m: m["golden"].update(same_top1=1), "true or false"),
        (lambda m: m["limits"].update(seconds=1e9), "limits.seconds must be"),
        (lambda m: m["limits"].update(latency_ms=-1), "above 0"),
        (lambda m: m["target"].update(runtimes={}), "runtimes must be some of"),
        (lambda m: m["target"].update(runtimes={"onnxruntime": ["~=1"]}), "runtime's version can't be '~=1'"),
        *[
            (
                lambda m, name=name: m["files"].update({name: m["files"]["model.onnx"]}),
                "may not be called|can't be among",
            )
            for name in ("../x", "/x", "a/../x", "a//x", ".x", "a\\x", "x\0", "a/b/c/d/e", "C:x", "manifest.json", "ü")
        ],
        (lambda m: m["files"].update({"MODEL.onnx": m["files"]["model.onnx"]}), "where case does not count"),
        (lambda m: m["files"].update({"Model.onnx/x": m["files"]["model.onnx"]}), "where another needs a folder"),
        (lambda m: m["files"].update({f"f{i}": m["files"]["model.onnx"] for i in range(64)}), "1 to 64 files"),
    ],
)
def test_signed_nonsense(
    vendor: Vendor, device: Device, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    signed = vendor.bundle(1, edit)
    head = replace(signed, files={})  # nothing is read behind the manifest
    _refuse(device, head, message)


def test_signed_json_that_is_none(vendor: Vendor, device: Device) -> None:
    for data in (b"", b"[" * 200_000, b"\xff", b'{"schema": 1, "schema": 1}', b"null", b"[]"):
        head = replace(vendor.bundle(), manifest=data, signature=vendor.key.sign(data), files={})
        _refuse(device, head, "not one that this agent understands")


def test_a_folder_with_more_or_less_or_links_in_it(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    def refused(name: str, message: str, change: Callable[[Path], object]) -> None:
        folder = write(vendor.bundle(), tmp_path / name)
        change(folder)
        with pytest.raises(RefusedError, match=message):
            install(device, Folder(folder), check=passed)
        assert device.active is None

    def link(folder: Path) -> None:
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").symlink_to("/etc/passwd")

    def pipe(folder: Path) -> None:
        (folder / "manifest.sig").unlink()
        os.mkfifo(folder / "manifest.sig")

    refused("more", "holds more, unlike", lambda folder: (folder / "more").write_bytes(b""))
    refused("less", r"lacks golden/input\.npy", lambda folder: (folder / "golden" / "input.npy").unlink())
    refused("link", r"model\.onnx is no regular file", link)
    refused("pipe", r"manifest\.sig is no regular file", pipe)
    refused("long", r"damaged at model\.onnx", lambda folder: (folder / "model.onnx").open("ab").write(b"x"))
    refused("many", "more files than", lambda folder: [(folder / f"f{index}").touch() for index in range(600)])
