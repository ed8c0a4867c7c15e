"""Vendors of a tiny classifier, and what is done with their bundles."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

from rexport.deploy.bundle import make_bundle
from rexport.deploy.container import to_rxb, write_folder
from rexport.deploy.payload import BundleOptions, collect
from rexport.deploy.signing import load_private_key, new_key_pair
from rexport.device import _install
from rexport.device._keys import add_key
from rexport.device._state import Device
from tests.deploy._bundles import saved
from tests.faults.vendor import Vendor

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    import pytest

    from rexport.deploy.container import Contents
    from rexport.device._keys import Key

__all__ = ["device_of", "new_vendor", "openssl_once", "write"]


def new_vendor(folder: Path, model: ir.Model | None = None) -> Vendor:
    """Make a key, and a bundle of a model to begin from, by default of a tiny classifier."""
    new_key_pair(folder / "key.pem")
    key = load_private_key(folder / "key.pem")
    options = BundleOptions(machines=(platform.machine(),))
    made = make_bundle(
        collect(saved(folder, model), options), name="tiny", version=1, key=key, options=options
    ).contents
    return Vendor(key=key, document=json.loads(made.manifest), files=made.files)


def device_of(folder: Path, *vendors: Vendor) -> Device:
    """Return a device that trusts some vendors."""
    device = Device(folder / "device")
    for vendor in vendors:
        add_key(device.keys, vendor.key.public_pem(), "the key")
    return device


def write(contents: Contents, path: Path) -> Path:
    """Write a bundle, as a folder unless the name ends in ``.rxb``."""
    if path.suffix == ".rxb":
        path.write_bytes(to_rxb(contents))
    else:
        write_folder(dict(contents.members()), path)
    return path


def openssl_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask openssl only once for each manifest and signature; what it refuses, it is asked again."""
    verify = _install.verify
    known: dict[tuple[bytes, bytes], Key] = {}

    def verify_once(keys: list[Key], data: bytes, signature: bytes) -> Key:
        if (data, signature) not in known:
            known[data, signature] = verify(keys, data, signature)
        return known[data, signature]

    monkeypatch.setattr(_install, "verify", verify_once)
