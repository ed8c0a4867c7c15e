"""Installing, going back, and cleaning up.

In this order, and nothing of a bundle reaches a parser or a runtime before its turn:

    lock · manifest and signature, of limited size · signature by a trusted key · manifest · name, version, expiry and
    target · sizes and room · each file hashed as it is copied into staging · everything flushed to the disk · renamed
    into versions/ · self-check · `active` switched by one rename · self-check through `active` · written down

The second self-check is short; if it fails, the links go back to what they were.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple

from ._container import MANIFEST, SIGNATURE, Container, Folder
from ._errors import AgentError, InstallError, RefusedError, UnusableError
from ._files import flush, flush_tree, open_plain, remove, sha256_of, write
from ._keys import Key, require_space_for, trusted_keys, verify
from ._manifest import Manifest, parse_manifest
from ._self_check import Checked, Version, self_check
from ._state import Device, now
from ._target import require_target, usable_runtimes

if TYPE_CHECKING:
    from pathlib import Path

    Check = Callable[..., Checked]

__all__ = [
    "Installed",
    "collect_garbage",
    "highest_version",
    "install",
    "load",
    "rehearse",
    "require_installable",
    "roll_back",
]

_MARGIN = 16 << 20  # bytes, for the state, links and folders
_EPOCH = datetime(2025, 1, 1, tzinfo=timezone.utc)  # a clock before it was never set


class Installed(NamedTuple):
    """What an install or a rollback did; ``check`` is ``None`` where nothing was to be done."""

    result: str
    changed: bool
    manifest: Manifest
    check: Checked | None


class _Signed(NamedTuple):
    data: bytes
    signature: bytes
    key: Key
    manifest: Manifest


def install(device: Device, bundle: Container, *, check: Check = self_check) -> Installed:
    """Install a bundle; the device's lock is held.

    Args:
        device: Where to.
        bundle: Read once, front to back.
        check: The self-check.

    Raises:
        RefusedError: Its signature, hashes, name, version or expiry.
        UnusableError: It is for other devices.
        InstallError: It was not installed for another reason, such as its self-check.
    """
    keys = trusted_keys(device.keys)
    signed = _read_head(bundle, keys)
    manifest = signed.manifest
    _adopt(device, keys)
    require_installable(device, manifest, keys)
    require_target(manifest.target)
    is_complete = _is_whole(device.versions / manifest.id, manifest)
    if device.active == manifest.id and is_complete:
        return Installed("already active", False, manifest, None)
    try:
        if not is_complete:
            _require_room(device, manifest)
            _bring(device, bundle, signed)
        return _switch_to(device, signed, "install", check)
    except OSError as error:
        raise _failed(device, signed, error) from error


def rehearse(device: Device, bundle: Container, *, trust: Key | None = None) -> Installed:
    """Check all that an install checks before it writes, and that a runtime can be used here; nothing is written.

    Args:
        device: Where to.
        bundle: Only its manifest and signature are read.
        trust: A key that the device would be made to trust first.

    Raises:
        RefusedError: As :func:`install`.
        UnusableError: The bundle is for other devices, or none of its runtimes can be used here.
    """
    keys = trusted_keys(device.keys)
    if trust is not None and trust not in keys:
        require_space_for(keys)
        keys.append(trust)
    manifest = _read_head(bundle, keys).manifest
    require_installable(device, manifest, keys)
    usable_runtimes(manifest)
    is_complete = _is_whole(device.versions / manifest.id, manifest)
    if device.active == manifest.id and is_complete and device.read()["pending"] is None:
        return Installed("already active", False, manifest, None)
    return Installed("would install", False, manifest, None)


def _read_head(bundle: Container, keys: list[Key]) -> _Signed:
    """Return a bundle's manifest, which nothing parses before its signature was found good."""
    data, signature = bundle.head()
    key = verify(keys, data, signature)
    return _Signed(data, signature, key, parse_manifest(data))


def roll_back(device: Device, *, check: Check = self_check) -> Installed:
    """Make the previous version active, after a self-check; what was active becomes the previous one.

    Raises:
        InstallError: There is none, or it fails.
        RefusedError: It is damaged, or its key is trusted no longer.
    """
    previous = device.previous
    if previous is None:
        raise InstallError("There is no previous version to roll back to.")
    signed = _load(device, previous)
    try:
        return _switch_to(device, signed, "rollback", check)
    except OSError as error:
        raise _failed(device, signed, error) from error


def load(device: Device) -> Version:
    """Return the active version, after its signature and every hash were found good.

    Raises:
        UnusableError: None is active.
        RefusedError: It is damaged, or its key is trusted no longer.
    """
    active = device.active
    if active is None:
        raise UnusableError(f"No version is active in {device.root}; install one with `install BUNDLE`.")
    return Version(device.versions / active, _load(device, active).manifest, device.engines)


def collect_garbage(device: Device) -> list[str]:
    """Remove the versions that are neither active nor previous, and engines built for others; return their names."""
    gone = device.leftovers()
    used = set()
    for name in (device.active, device.previous):
        with suppress(AgentError, OSError):
            if name is not None:
                manifest = _load(device, name).manifest
                used.add(manifest.files[manifest.model].sha256[:16])
    gone += [path for path in sorted(device.engines.glob("*")) if path.stem.rsplit("-", 1)[-1] not in used]
    for path in gone:
        remove(path)
    return [path.name for path in gone]


def require_installable(device: Device, manifest: Manifest, keys: list[Key]) -> None:
    """Do nothing if a manifest is of this device's model, new enough and not expired.

    Versions that were signed by a key that is trusted no longer don't count: whoever stole it may have taken the
    highest.

    Raises:
        RefusedError: It is not.
        UnusableError: The clock was never set, so that nobody knows.
    """
    state = device.read()
    if state["name"] is not None and state["name"] != manifest.name:
        raise RefusedError(
            f"The bundle is of {manifest.name}, and {device.root} is for {state['name']}; give another model a root of "
            "its own with --root."
        )
    highest = highest_version(device, keys)
    if manifest.version < highest:
        raise RefusedError(
            f"The bundle is version {manifest.version}, and {highest} was installed before; to return to the previous "
            "version, type `rollback`."
        )
    same = state["highest"] == highest == manifest.version
    if same and state["highest_sha256"] not in (None, manifest.sha256):
        raise RefusedError(f"Another bundle of version {highest} was installed before; give this one a higher version.")
    if manifest.expires is not None:
        clock = datetime.now(timezone.utc)
        if clock < _EPOCH:
            raise UnusableError(f"The device's clock says {clock:%Y-%m-%d}, and the bundle expires; set the clock.")
        if clock >= manifest.expires:
            raise RefusedError(f"The bundle expired on {manifest.expires:%Y-%m-%d %H:%M} UTC; make a new one.")


def highest_version(device: Device, keys: list[Key]) -> int:
    """Return the highest version that was ever installed from a key that is still trusted, 0 without one."""
    trusted = {key.fingerprint for key in keys}
    return max([version for key, version in device.read()["highest_by_key"].items() if key in trusted], default=0)


def _adopt(device: Device, keys: list[Key]) -> None:
    """Where the state was lost, begin anew from the name of the active version."""
    active = device.active
    if device.read()["name"] is None and active is not None:
        name, version, _ = active.rsplit("-", 2)
        device.write(name=name, highest=int(version), highest_by_key={key.fingerprint: int(version) for key in keys})


def _bring(device: Device, bundle: Container, signed: _Signed) -> None:
    """Copy a bundle's files into versions/, so that they appear there all at once, flushed."""
    staged = device.staging / secrets.token_hex(8)
    final = device.versions / signed.manifest.id
    try:
        staged.mkdir(mode=0o755, parents=True)
        device.versions.mkdir(mode=0o755, exist_ok=True)

        def store(name: str, chunks: Iterator[bytes]) -> None:
            path = staged / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                for chunk in chunks:
                    write(descriptor, chunk)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        bundle.copy(signed.manifest.files, store)
        store(MANIFEST, iter([signed.data]))
        store(SIGNATURE, iter([signed.signature]))
        flush_tree(staged)
        if final.exists():  # damaged, or it would not be replaced
            final.rename(staged.with_suffix(".damaged"))
        staged.rename(final)
        flush(device.versions)
        flush(device.root)
    finally:
        remove(staged)
        remove(staged.with_suffix(".damaged"))


def _switch_to(device: Device, signed: _Signed, verb: str, check: Check) -> Installed:
    """Check a version that is in versions/, make it active, and check it there; or leave everything as it was."""
    manifest, before = signed.manifest, device.active
    version = Version(device.versions / manifest.id, manifest, device.engines)
    try:
        checked = check(version)
        if before != manifest.id:
            device.begin_switch(verb, manifest.id)
            check(version._replace(folder=device.root / "active"), quick=True)
    except (InstallError, UnusableError) as error:
        device.undo()
        _note_failure(device, signed, verb, error)
        _drop(device, manifest)
        raise type(error)(f"{error} {_still_active(device)}") from error
    device.commit(**_changes(device, signed, verb, checked))
    return Installed("installed" if verb == "install" else "rolled back", True, manifest, checked)


def _changes(device: Device, signed: _Signed, verb: str, checked: Checked) -> dict[str, Any]:
    state, manifest = device.read(), signed.manifest
    changes: dict[str, Any] = {
        "name": manifest.name,
        "runtime": {"name": checked.runtime, "version": checked.runtime_version},
        "last": {"verb": verb, "result": "done", "version": manifest.version, "time": now()},
    }
    if verb == "install":
        by_key = dict(state["highest_by_key"])
        by_key[signed.key.fingerprint] = max(manifest.version, by_key.get(signed.key.fingerprint, 0))
        changes.update(highest=manifest.version, highest_sha256=manifest.sha256, highest_by_key=by_key)
    return changes


def _note_failure(device: Device, signed: _Signed, verb: str, error: AgentError) -> None:
    manifest = signed.manifest
    device.note_failure(manifest.id, manifest.version, manifest.sha256, str(error))
    device.write(last={"verb": verb, "result": "failed", "version": manifest.version, "time": now()})


def _load(device: Device, version_id: str) -> _Signed:
    """Read a version back from versions/ as strictly as it came in."""
    folder = device.versions / version_id
    data, signature = Folder(folder).head()
    key = verify(trusted_keys(device.keys), data, signature)
    manifest = parse_manifest(data)
    if manifest.id != version_id or not _is_whole(folder, manifest):
        raise RefusedError(f"{folder} is damaged; install the bundle again, or type `rollback`.")
    return _Signed(data, signature, key, manifest)


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    """Say whether a version's folder holds what its manifest says."""
    try:
        if sha256_of(folder / MANIFEST) != manifest.sha256:
            return False
        os.close(open_plain(folder / SIGNATURE))
        return all(sha256_of(folder / name) == entry.sha256 for name, entry in manifest.files.items())
    except OSError:
        return False


def _drop(device: Device, manifest: Manifest) -> None:
    """Remove a version that did not become active, unless it is the one to go back to."""
    if manifest.id not in (device.active, device.previous):
        remove(device.versions / manifest.id)


def _require_room(device: Device, manifest: Manifest) -> None:
    needed = manifest.size + _MARGIN
    if _room(device.root) < needed:
        collect_garbage(device)
    room = _room(device.root)
    if room < needed:
        raise InstallError(
            f"The bundle needs {needed >> 20:,} MiB, and {device.root} has {room >> 20:,} MiB of room; free some."
        )


def _room(folder: Path) -> int:
    file_system = os.statvfs(str(folder))
    return file_system.f_bavail * file_system.f_frsize


def _failed(device: Device, signed: _Signed, error: OSError) -> InstallError:
    """Put back what can be, and say how things stand."""
    try:
        device.undo()
        _drop(device, signed.manifest)
        outcome = _still_active(device)
    except (OSError, AgentError):
        outcome = "The switch will be undone when the agent runs again."
    return InstallError(f"The bundle was not installed: {error.strerror or error}. {outcome}")


def _still_active(device: Device) -> str:
    active = device.active
    return f"{active} is still active." if active else "No version is active."
