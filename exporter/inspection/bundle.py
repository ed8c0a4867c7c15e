"""A bundle for devices: its manifest, whether its files match it, and its signature."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rexport.deploy.container import is_rxb, read
from rexport.deploy.manifest import from_bytes
from rexport.device._container import MANIFEST, MODEL_SIGNATURE
from rexport.device._manifest import OUTPUTS
from rexport.inspection.report import FileReport, Table
from rexport.preprocessing import size_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rexport.deploy.container import Contents
    from rexport.device._manifest import Manifest

__all__ = ["describe", "is_bundle"]

_HEAD = 64


def is_bundle(path: Path) -> bool:
    """Say whether a file or folder is a bundle, or has the suffix of one."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
    return bool(head) and (path.suffix.lower() == ".rxb" or is_rxb(head))


def describe(path: Path, public_key: Path | None = None) -> FileReport:
    """Describe a bundle. With a key, its signature is verified before anything else is read.

    Raises:
        BundleError: It is broken.
        VerificationError: It is not signed with the key, or its files are not those that its manifest states.
        InputError: The key can't be read.
    """
    contents = read(path)
    signed_by: str | None = None
    signature = "not verified: name the key with --public-key"
    if public_key is not None:
        signed_by = _signed_by(contents, public_key)
        signature = f"verified, by the key {signed_by}"
    manifest = from_bytes(contents.manifest)
    contents.require_files(manifest)
    digest = manifest.sha256
    document = {
        "form": "folder" if path.is_dir() else "rxb",
        "manifest": manifest.to_json(),
        "manifest_sha256": digest,
        "signed_by": signed_by,
        "model_signature": MODEL_SIGNATURE in contents.files,
        "expired": _expired(manifest),
    }
    facts = [
        ("bundle", f"{manifest.name} {manifest.version}, {_size(contents):.2f} MiB"),
        ("manifest", f"sha256 {digest}"),
        ("signature", signature),
        *_facts(manifest),
    ]
    if MODEL_SIGNATURE in contents.files:
        facts.append(("OpenSSF", f"signed, in {MODEL_SIGNATURE}"))
    return FileReport(kind="bundle", facts=tuple(facts), tables=(_files(manifest),), document=document)


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
    runtimes = (f"{name} {_list(versions)}".strip() for name, versions in target.runtimes.items())
    preprocessing = manifest.preprocessing
    images = f"{preprocessing['takes']} images, {size_in_words(preprocessing['size'])}"
    resize = preprocessing["resize"]
    if isinstance(resize, list):
        resize = size_in_words((resize[0], resize[1]))
    if resize is not None:
        images += f" of pictures resized to {resize}"
    gives = manifest.head or "scores, as logits or probabilities"
    check = f"scores within {golden.min_sqnr_db:g} dB"
    if manifest.head == OUTPUTS:
        gives, check = "outputs that are no scores of classes", f"each output within {golden.min_sqnr_db:g} dB"
    if golden.same_top1:
        check += ", the same largest score"
    if limits.latency_ms is not None:
        check += f", the median call at most {limits.latency_ms:g} ms"
    return [
        ("expires", _expiry(manifest)),
        ("for", f"{target.system} on {_list(target.machines)}"),
        ("runs on", " or ".join(runtimes)),
        ("takes", images),
        ("gives", gives),
        ("check", check),
        ("limits", f"{limits.seconds} s and {limits.memory_mib} MiB for the check"),
        *(
            ("engine", f"{engine.backend} {engine.version} for GPUs {_list(engine.capabilities) or 'unstated'}")
            for engine in manifest.engines
        ),
    ]


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _expired(manifest: Manifest) -> bool:
    return manifest.expires is not None and manifest.expires <= datetime.now(UTC)


def _expiry(manifest: Manifest) -> str:
    if manifest.expires is None:
        return "never"
    past = ", which is in the past" if _expired(manifest) else ""
    return f"{manifest.expires:%Y-%m-%d %H:%M} UTC{past}"


def _size(contents: Contents) -> float:
    return sum(len(data) for _, data in contents.members()) / 2**20


def _files(manifest: Manifest) -> Table:
    return Table(
        title="Files",
        columns=("file", "bytes", "sha256"),
        rows=tuple((name, f"{facts.bytes:,}", f"{facts.sha256[:16]}…") for name, facts in manifest.files.items()),
        left=(0, 2),
    )
