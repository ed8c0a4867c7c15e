"""Manifests of bundles on the desk: they are written and read by the agent's own module.

What a user gave and can't be in one is a :class:`BundleError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._errors import BundleError, DamagedBundleError
from rexport.device._container import MANIFEST
from rexport.device._manifest import MAX_VERSION, NAME, read_manifest, require_file_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.device._manifest import Manifest

__all__ = ["from_bytes", "require_name", "require_names", "require_version", "to_bytes"]


def from_bytes(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        DamagedBundleError: See :func:`rexport.device._manifest.read_manifest`.
    """
    try:
        return read_manifest(data)
    except ValueError as error:
        raise DamagedBundleError(f"{MANIFEST}: {error}; make the bundle again.") from error


def to_bytes(manifest: Manifest) -> bytes:
    """Return the bytes to sign.

    Raises:
        BundleError: They could not be read.
    """
    try:
        return manifest.to_bytes()
    except ValueError as error:
        raise BundleError(f"Devices would refuse this bundle: {error}.") from error


def require_names(names: Sequence[str]) -> None:
    """Raise :class:`BundleError` where files of these names can't lie in one bundle, on any file system."""
    try:
        require_file_names(names)
    except ValueError as error:
        text = str(error)
        raise BundleError(f"{text[0].upper()}{text[1:]}.") from error


def require_name(name: str) -> None:
    """Raise :class:`BundleError` for a name that a bundle can't have."""
    if not NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} is not a valid name: use at most 64 lower-case letters, digits and '._-', as in resnet50."
        )


def require_version(version: int) -> None:
    """Raise :class:`BundleError` for a version that a bundle can't have."""
    if not 1 <= version <= MAX_VERSION:
        raise BundleError(f"{version} is not a valid version: use whole numbers from 1 up.")
