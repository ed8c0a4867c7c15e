"""A bundle for devices: what it says, whether its files are those that it states, and who signed it."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rexport.deploy.container import is_rxb, read
from rexport.deploy.manifest import from_bytes
from rexport.device._container import MANIFEST, MODEL_SIGNATURE
from rexport.inspection.report import FileReport, Table

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.container import Contents
    from rexport.device._manifest import Manifest

__all__ = ["describe", "is_bundle"]

_HEAD = 64


def is_bundle(path: Path) -> bool:
    """Say whether a file or folder is a bundle, or is called one."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
    return bool(head) and (path.suffix.lower() == ".rxb" or is_rxb(head))


def describe(path: Path, public_key: Path | None = None) -> FileReport:
    """Describe a bundle. With a key, its signature is verified before anything in it is believed.

    Raises:
        BundleError: It is broken.
        VerificationError: It is not signed with the key, or its files are not those that its manifest states.
        InputError: The key can't be read.
    """
    contents = read(path)
    signed_by = None if public_key is None else _signed_by(contents, public_key)
    manifest = from_bytes(contents.manifest)
    contents.require_files(manifest)
    digest = manifest.sha256
    state = "not verified: name the key with --public-key" if signed_by is None else f"by the key {signed_by}"
    document = {
        "form": "folder" if path.is_dir() else "rxb",
        "manifest": manifest.to_json(),
        "manifest_sha256": digest,
        "signed_by": signed_by,
        "model_signature": MODEL_SIGNATURE in contents.files,
        "expired": _expired(manifest),
    }
    return FileReport(
        kind="bundle",
        facts=(
            ("bundle", f"{manifest.name} {manifest.version}, {_size(contents):.2f} MiB"),
            ("manifest", f"sha256 {digest}"),
            ("signature", state),
            *_facts(manifest),
            *([("OpenSSF", f"signed, in {MODEL_SIGNATURE}")] if MODEL_SIGNATURE in contents.files else []),
        ),
        tables=(_files(manifest),),
        document=document,
    )


def _signed_by(contents: Contents, public_key: Path) -> str:
    """Verify the signatures and return the fingerprint of the key."""
    from rexport.deploy import model_signing
    from rexport.deploy.signing import load_public_key

    key = load_public_key(public_key)
    key.verify(contents.manifest, contents.signature)
    if MODEL_SIGNATURE in contents.files:
        model_signing.verify(contents, key)
    return key.fingerprint()


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    target, golden, limits = manifest.target, manifest.golden, manifest.limits
    runtimes = (" ".join((name, ", ".join(versions))).strip() for name, versions in target.runtimes.items())
    latency = "" if limits.latency_ms is None else f", the median call at most {limits.latency_ms:g} ms"
    taken = manifest.preprocessing
    resized = "" if taken["resize"] is None else f" of pictures resized to {taken['resize']}"
    top = ", the same largest score" if golden.same_top1 else ""
    return [
        ("expires", _expiry(manifest)),
        ("for", f"{target.system} on {', '.join(target.machines)}"),
        ("runs on", " or ".join(runtimes)),
        ("takes", f"{taken['takes']} images, {taken['size']}×{taken['size']}{resized}"),
        ("gives", manifest.head or "scores, as logits or probabilities"),
        ("check", f"scores within {golden.min_sqnr_db:g} dB{top}{latency}"),
        ("limits", f"{limits.seconds} s and {limits.memory_mib} MiB for the check"),
        *(
            ("engine", f"{one.backend} {one.version} for GPUs {', '.join(map(str, one.capabilities)) or 'unstated'}")
            for one in manifest.engines
        ),
    ]


def _expired(manifest: Manifest) -> bool:
    return manifest.expires is not None and manifest.expires <= datetime.now(UTC)


def _expiry(manifest: Manifest) -> str:
    if manifest.expires is None:
        return "never"
    return f"{manifest.expires:%Y-%m-%d %H:%M} UTC" + ", which is past" * _expired(manifest)


def _size(contents: Contents) -> float:
    return sum(len(data) for _, data in contents.members()) / 2**20


def _files(manifest: Manifest) -> Table:
    return Table(
        title="Files",
        columns=("file", "bytes", "sha256"),
        rows=tuple((name, f"{facts.bytes:,}", facts.sha256) for name, facts in manifest.files.items()),
        left=(0, 2),
    )
