"""From files to signed contents: the sizes and hashes go into the manifest, and the manifest is signed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rexport.deploy.container import Contents
from rexport.deploy.manifest import to_bytes
from rexport.device._manifest import FileEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.deploy.signing import PrivateKey
    from rexport.device._manifest import Manifest

__all__ = ["sign_files"]


def sign_files(manifest: Manifest, files: Mapping[str, bytes], key: PrivateKey) -> Contents:
    """Return a signed bundle of ``files``, whose sizes and hashes are put into the manifest.

    Raises:
        BundleError: The manifest says what it may not, or names a file that is not there.
        UnavailableError: As :meth:`PrivateKey.sign`.
    """
    facts = {
        name: FileEntry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in sorted(files.items())
    }
    data = to_bytes(manifest._replace(files=facts))
    return Contents(manifest=data, signature=key.sign(data), files=files)
