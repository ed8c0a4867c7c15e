"""Whoever signs bundles, honest or not, and a device that is attacked with them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from rexport.deploy.container import Contents, read, to_rxb
from rexport.deploy.signing import PrivateKey, load_private_key, new_key_pair
from rexport.device._container import Archive
from rexport.device._install import highest_version, install
from rexport.device._keys import add_key, trusted_keys
from rexport.device._self_check import Checked
from rexport.device._state import Device
from rexport.device.command_line import main as agent
from tests.faults.agent import MAY_APPEAR, Workshop, everything_below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rexport.device._install import Installed
    from rexport.device._self_check import Version

__all__ = ["REFUSED", "UNUSABLE", "Vendor", "Victim", "archive", "passed"]

REFUSED, UNUSABLE = 3, 5
"""The agent's exit codes: not to be trusted, and not for this device."""


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A key, and what an honest bundle holds."""

    key: PrivateKey
    document: Mapping[str, Any]
    files: Mapping[str, bytes]

    @classmethod
    def new(cls, folder: Path) -> Vendor:
        """Make a key, and a bundle of a small network to begin from."""
        workshop = Workshop.set_up(folder)
        made = read(workshop.bundle(1))
        return cls(key=workshop.key, document=json.loads(made.manifest), files=made.files)

    def other(self, folder: Path) -> Vendor:
        """Return one who makes the same with another key."""
        new_key_pair(folder / "other.pem")
        return replace(self, key=load_private_key(folder / "other.pem"))

    def bundle(
        self,
        version: int = 1,
        edit: Callable[[dict[str, Any]], object] = lambda _: None,
        /,
        **files: bytes,
    ) -> Contents:
        """Return a signed bundle.

        Args:
            version: Its version.
            edit: Changes the manifest; sizes and hashes are right before that.
            files: Other contents than usual, by the manifest's names for them: ``model``, ``input``, ``logits``.
        """
        names = {"model": self.document["model"], **{key: f"golden/{key}.npy" for key in ("input", "logits")}}
        contents = {**self.files, **{names[key]: data for key, data in files.items()}}
        document = copy.deepcopy(dict(self.document))
        document["version"] = version
        document["files"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
        }
        edit(document)
        manifest = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
        return Contents(manifest=manifest, signature=self.key.sign(manifest), files=contents)


@dataclass
class Victim:
    """A device that trusts a vendor, and what came of the attacks on it.

    Attributes:
        folder: Where the device is, and where attackers leave their files.
        vendor: Whose bundles are installed there.
        device: The device.
        tried: How many times something was tried.
        refused: How many of these were refused as they have to be.
        problems: A sentence for each of the others, and for what came out wrong besides.
    """

    folder: Path
    vendor: Vendor
    device: Device
    tried: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, folder: Path, vendor: Vendor, *, installed: int = 0) -> Victim:
        """Set up a device on which so many versions were installed, one after the other."""
        folder.mkdir(parents=True, exist_ok=True)
        victim = cls(folder=folder, vendor=vendor, device=Device(folder / "device"))
        add_key(victim.device.keys, vendor.key.public_pem(), "the key")
        for _ in range(installed):
            victim.install(vendor.bundle(victim.version + 3))
        return victim

    @property
    def version(self) -> int:
        """The highest version that was ever installed there from a key that is trusted, 0 without one."""
        return highest_version(self.device, trusted_keys(self.device.keys))

    def install(self, contents: Contents) -> Installed:
        """Install an honest bundle, and take its self-check for passed."""
        with archive(contents) as bundle:
            return install(self.device, bundle, check=passed)

    def refuse(self, bundle: Contents | bytes | Path, reason: str, code: int = REFUSED) -> None:
        """Give the agent a bundle, which it must refuse for this reason (a pattern), changing nothing."""
        if not isinstance(bundle, Contents | bytes):
            self.refuse_command("install", str(bundle), reason=reason, code=code)
            return
        descriptor = _in_memory(bundle)
        self.refuse_command("install", f"/proc/self/fd/{descriptor}", reason=reason, code=code)
        os.close(descriptor)

    def refuse_command(self, *words: str, reason: str, code: int = REFUSED, stdin: int | None = None) -> None:
        """Run the agent in this process with a command that it must refuse.

        Args:
            words: The command.
            reason: A pattern of what it has to say.
            code: The exit code that it has to end with.
            stdin: A descriptor that it reads from, and closes.
        """
        self.tried += 1
        before = everything_below(self.device.root, but=MAY_APPEAR)
        said, errors = io.StringIO(), io.StringIO()
        given = mock.Mock(fileno=lambda: stdin)
        with redirect_stdout(said), redirect_stderr(errors), mock.patch.object(sys, "stdin", given):
            try:
                ended: object = agent([*words, "--root", str(self.device.root), "--json", "--wait", "5"])
            except BaseException as error:  # it must raise nothing, not even to end the process
                ended = repr(error)
        found = everything_below(self.device.root, but=MAY_APPEAR)
        if ended != code:
            self.problems.append(f"it ends with {ended} instead of {code}: {(said.getvalue() or errors.getvalue())!r}")
        elif not re.search(reason, json.loads(said.getvalue())["error"]):
            self.problems.append(f"it is refused for another reason than {reason!r}: {said.getvalue()}")
        elif found != before:
            changed = sorted(name for name in {*before, *found} if before.get(name) != found.get(name))
            self.problems.append(f"it is refused, and {changed[0]} on the device is another than before")
        else:
            self.refused += 1

    def require(self, fact: bool, sentence: str) -> None:
        """Note that something did not come as it has to."""
        if not fact:
            self.problems.append(sentence)


def archive(data: bytes | Contents) -> Archive:
    """Return an ``.rxb`` file that is open for reading, and nowhere on the disk."""
    return Archive(_in_memory(data))


def passed(version: Version, *, quick: bool = False) -> Checked:
    """Stand in for the self-check where a test is of what comes before and after it."""
    assert (version.folder / version.manifest.model).is_file()
    return Checked("onnxruntime", "1.0", None, same_top1=True, latency_ms=None if quick else 1.0)


def _in_memory(data: bytes | Contents) -> int:
    """Return the descriptor of an ``.rxb`` file that is nowhere on the disk."""
    descriptor = os.memfd_create("bundle")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data if isinstance(data, bytes) else to_rxb(data))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
