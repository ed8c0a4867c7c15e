"""The attacks that The Update Framework names, mounted against the agent, on devices in several states.

They are those of its specification's section 1.5.2 and of python-tuf's SECURITY.md, and of what is signed and yet
nonsense. The agent's command line runs in this process. It has to refuse with its exit code and for the right reason,
and nothing on the device may be another than before, but for the lock and empty folders; then the honest vendor's next
version has to be installed as ever.

Two of the list don't apply: a bundle has no dependencies that could be extraneous, only files; and a device that is
sent bundles asks no mirror that could keep them back.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

from rexport.deploy.container import to_rxb, write_folder
from rexport.device import _install
from rexport.device._errors import AgentError
from rexport.device._install import load
from rexport.device._keys import add_key, remove_key
from rexport.device._state import Device
from tests.faults._nonsense import NO_MANIFESTS, NONSENSE
from tests.faults._part import NotHereError, Part, require_modules, require_tools
from tests.faults.vendor import UNUSABLE, Vendor, Victim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rexport.deploy.container import Contents

__all__ = ["ATTACKS", "DEVICES", "mount", "run"]

DEVICES: Mapping[str, int] = {"new": 0, "with one version": 1, "with one to go back to": 2}
"""The states of devices, and how many versions were installed there."""


def arbitrary_software(victim: Victim) -> None:
    """Another key's bundle, another key's signature, none; and a device that trusts nobody."""
    new = victim.version + 1
    stranger, honest = victim.vendor.other(victim.folder), victim.vendor.bundle(new)
    victim.refuse(stranger.bundle(new), "not signed by any of the trusted keys")
    victim.refuse(replace(honest, signature=stranger.bundle(new).signature), "not signed by any of the trusted keys")
    victim.refuse(replace(honest, signature=b""), "not signed by any of the trusted keys")
    trusting, victim.device = victim.device, Device(victim.folder / "trusts nobody")
    victim.device.root.mkdir()
    victim.refuse(honest, "trusts no key yet")
    victim.device = trusting


def rollback(victim: Victim) -> None:
    """An older version that was signed once, and another bundle of the version that is installed."""
    vendor, new = victim.vendor, victim.version + 7
    victim.install(vendor.bundle(new))
    victim.refuse(vendor.bundle(new - 1), f"version {new - 1}, and {new} was installed before")
    again = vendor.bundle(new, lambda m: m.update(expires="2999-01-01T00:00:00Z"))
    victim.refuse(again, f"Another bundle of version {new}")


def fast_forward(victim: Victim) -> None:
    """Who stole a key takes the highest version of all; once the key is gone, versions go on where they were."""
    vendor, new = victim.vendor, victim.version
    heir = vendor.other(victim.folder)
    victim.install(vendor.bundle(new + 2))
    add_key(victim.device.keys, heir.key.public_pem(), "new")
    victim.install(heir.bundle(new + 3))
    victim.install(vendor.bundle(2**31 - 1))  # the thief's
    victim.refuse(heir.bundle(new + 4), "2147483647 was installed before")
    remove_key(victim.device.keys, vendor.key.public().fingerprint()[:12])
    victim.refuse(heir.bundle(new + 2), f"{new + 3} was installed before")
    victim.vendor = heir
    victim.require(
        victim.install(heir.bundle(new + 4)).manifest.version == new + 4, "the next version is not installed"
    )
    victim.require(victim.device.read()["highest"] == new + 4, "the thief's version is still the highest")


def freeze(victim: Victim) -> None:
    """A version that expired; and one that expires, on a device that does not know what day it is."""
    vendor, new = victim.vendor, victim.version + 1
    expired = vendor.bundle(new, lambda m: m.update(expires="2026-01-01T00:00:00Z"))
    victim.refuse(expired, "expired on 2026-01-01 00:00")
    late = vendor.bundle(new, lambda m: m.update(expires="2999-01-01T00:00:00Z"))
    with mock.patch.object(_install, "datetime", _Clock):
        victim.refuse(late, "clock says 1970-01-02", UNUSABLE)
    victim.require(victim.install(late).changed, "a version that has not expired is not installed")


def mix_and_match(victim: Victim) -> None:
    """The manifest of one version and the files of another, as one file and as a folder; and one's signature."""
    vendor, new = victim.vendor, victim.version + 1
    first, second = vendor.bundle(new), vendor.bundle(new + 1, input=vendor.files["golden/input.npy"][::-1])
    mixed = replace(second, files=first.files)
    victim.require(len(to_rxb(mixed)) == len(to_rxb(second)), "the files that are mixed differ in size")
    victim.refuse(mixed, "SHA-256 is another")
    victim.refuse(replace(first, manifest=second.manifest), "not signed by any of the trusted keys")
    victim.refuse(_folder(victim, mixed, "mixed"), "SHA-256 is another")


def endless_data(victim: Victim) -> None:
    """More than was signed, sizes beyond those that there are, and no limit to what is read before the signature."""
    vendor, new = victim.vendor, victim.version + 1
    honest = to_rxb(vendor.bundle(new))
    model = vendor.document["model"]
    victim.refuse(honest + b"\0", "after the end of the bundle")
    victim.refuse(vendor.bundle(new, lambda m: m["files"][model].update(bytes=10)), r"damaged at model\.onnx")
    victim.refuse(vendor.bundle(new, lambda m: m["files"][model].update(bytes=1 << 40)), "whole number from 0")
    for name, size in (("manifest.json", 300 << 10), ("manifest.sig", 2 << 10)):
        position = honest.index(name.encode()) - 30
        long = bytearray(honest)
        long[position + 18 : position + 26] = size.to_bytes(4, "little") * 2
        victim.refuse(bytes(long), rf"{name} has [\d,]+ bytes, more than")
    _pour(victim, honest)


def slow_retrieval(victim: Victim) -> None:
    """A sender who stops in the middle and keeps the connection open."""
    reading, writing = os.pipe()
    os.write(writing, to_rxb(victim.vendor.bundle(victim.version + 1))[:2000])
    victim.refuse_command("serve-once", "--patience", "0.1", reason="Nothing more of the bundle", stdin=reading)
    os.close(writing)


def wrong_software(victim: Victim) -> None:
    """What was signed for another system, processor, runtime or model."""
    vendor, new = victim.vendor, victim.version + 2
    victim.install(vendor.bundle(new - 1))
    for edit, reason in (
        ({"system": "windows"}, "is for windows"),
        ({"machines": ["riscv64", "s390x"]}, "riscv64 or s390x"),
        ({"runtimes": {"onnxruntime": [">=99.0"]}}, "needs onnxruntime>=99.0"),
        ({"runtimes": {"onnxruntime": [">=1.2", "<1.3"]}}, "<1.3"),
    ):
        victim.refuse(vendor.bundle(new, _for_target(edit)), reason, UNUSABLE)
    victim.refuse(vendor.bundle(new, lambda m: m.update(name="other")), "is of other, and")


def key_compromise(victim: Victim) -> None:
    """A key before it is trusted and after it is not: neither new versions nor those that it once signed."""
    vendor, new = victim.vendor, victim.version + 1
    heir = vendor.other(victim.folder)
    victim.install(vendor.bundle(new))
    victim.refuse(heir.bundle(new + 1), "not signed by any of the trusted keys")
    add_key(victim.device.keys, heir.key.public_pem(), "new")
    victim.install(heir.bundle(new + 1))
    remove_key(victim.device.keys, vendor.key.public().fingerprint())
    victim.vendor = heir
    victim.require(load(victim.device).manifest.version == new + 1, "the version of the new key does not run")
    victim.refuse(vendor.bundle(new + 2), "not signed by any of the trusted keys")
    victim.refuse_command("rollback", reason="not signed by any of the trusted keys")


def extraneous_data(victim: Victim) -> None:
    """A folder that holds more or less than its manifest says, links and pipes; nothing besides is opened."""

    def link(folder: Path) -> None:
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").symlink_to("/etc/passwd")

    def pipe(folder: Path) -> None:
        (folder / "manifest.sig").unlink()
        os.mkfifo(folder / "manifest.sig")

    def lengthen(folder: Path) -> None:
        with (folder / "model.onnx").open("ab") as file:
            file.write(b"x")

    def crowd(folder: Path) -> None:
        for index in range(600):
            (folder / f"f{index}").touch()

    changes: Sequence[tuple[str, str, Callable[[Path], object]]] = (
        ("more", "holds more, unlike", lambda folder: (folder / "more").write_bytes(b"")),
        ("less", r"lacks golden/input\.npy", lambda folder: (folder / "golden" / "input.npy").unlink()),
        ("link", r"model\.onnx is no regular file", link),
        ("pipe", r"manifest\.sig is no regular file", pipe),
        ("long", r"damaged at model\.onnx", lengthen),
        ("many", "more files than", crowd),
    )
    for name, reason, change in changes:
        folder = _folder(victim, victim.vendor.bundle(victim.version + 1), name)
        change(folder)
        victim.refuse(folder, reason)


def signed_nonsense(victim: Victim) -> None:
    """Manifests with a good signature that say what none may; nothing is read behind them."""
    for edit, reason in NONSENSE:
        victim.refuse(replace(victim.vendor.bundle(victim.version + 1, edit), files={}), reason)


def signed_garbage(victim: Victim) -> None:
    """What was signed and is no manifest at all."""
    for data in NO_MANIFESTS:
        head = replace(victim.vendor.bundle(1), manifest=data, signature=victim.vendor.key.sign(data), files={})
        victim.refuse(head, "not one that this agent understands")


ATTACKS: Mapping[str, Callable[[Victim], None]] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        arbitrary_software, rollback, fast_forward, freeze, endless_data, slow_retrieval, extraneous_data,
        mix_and_match, wrong_software, key_compromise, signed_nonsense, signed_garbage,
    )
}  # fmt: skip
"""The attacks by name; each prepares a device, tries what it has, and notes what was not refused."""


def run(
    folder: Path,
    *,
    only: Sequence[str] = tuple(ATTACKS),
    devices: Sequence[str] = tuple(DEVICES),
    done: Callable[[int], None],
) -> Part:
    """Mount the attacks, or some, on each of these devices.

    Raises:
        NotHereError: The agent can't run here.
    """
    if sys.platform != "linux":
        raise NotHereError("It needs Linux, where the agent runs.")
    require_tools("openssl")
    require_modules("cryptography")
    vendor = Vendor.new(folder / "vendor")
    failures: list[str] = []
    tried, refused = dict.fromkeys(only, 0), dict.fromkeys(only, 0)
    for name in only:
        for device in devices:
            victim = Victim.new(folder / name / device, vendor, installed=DEVICES[device])
            mount(name, victim)
            tried[name] += victim.tried
            refused[name] += victim.refused
            failures += [f"{name}, on a device {device}: {problem}" for problem in victim.problems]
            done(victim.tried)
    detail = {"attacks": {name: f"refused: {refused[name]} of {tried[name]}" for name in only}}
    return Part(cases=sum(tried.values()), failures=tuple(failures), detail=detail)


def mount(name: str, victim: Victim) -> None:
    """Mount an attack; then the honest vendor's next version has to be installed."""
    try:
        ATTACKS[name](victim)
        new = victim.version + 1
        installed = victim.install(victim.vendor.bundle(new)).manifest.version
        victim.require(installed == new, f"the honest version {new} is not installed")
    except AgentError as error:
        victim.problems.append(f"an honest bundle is refused: {error}")


class _Clock(datetime):
    """A clock that was never set."""

    @classmethod
    def now(cls, tz: Any = None) -> _Clock:
        return cls(1970, 1, 2, tzinfo=tz)


def _for_target(changes: Mapping[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["target"].update(changes)


def _folder(victim: Victim, contents: Contents, name: str) -> Path:
    path = victim.folder / name
    write_folder(dict(contents.members()), path)
    return path


def _pour(victim: Victim, honest: bytes) -> None:
    """Send a bundle and then zeros for ever: no byte is taken beyond what was signed, but what a pipe holds."""
    reading, writing = os.pipe()
    sent = 0

    def pour() -> None:
        nonlocal sent
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            try:
                sent += pipe.write(honest) or 0
                while True:
                    sent += pipe.write(bytes(1 << 16)) or 0
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    victim.refuse_command("serve-once", reason="after the end of the bundle", stdin=reading)
    thread.join(10)
    victim.require(not thread.is_alive(), "the connection of an endless sender stays open")
    victim.require(sent < len(honest) + (1 << 20), f"{sent} bytes are taken of an endless sender")
