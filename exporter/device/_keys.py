"""The keys that a device trusts, and signatures by them: ECDSA on P-256 over the SHA-256 of the manifest.

What is verified goes to the ``openssl`` command: on devices it is there, gets security updates, and needs no package.
A public key is 91 bytes of DER in PEM (RFC 5480, uncompressed), so what else ``openssl`` would take never reaches it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from ._errors import AgentError, RefusedError, UnusableError, UsageError
from ._files import flush, open_plain, write_atomic

__all__ = [
    "MAX_KEYS",
    "MAX_KEY_BYTES",
    "Key",
    "add_key",
    "parse_key",
    "remove_key",
    "require_space_for",
    "trusted_keys",
    "verify",
]

MAX_KEYS = 2  # the one in use, and the next
_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_PEM = re.compile(rb"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----\s*")
MAX_KEY_BYTES = 4096
_SECONDS = 60.0


class Key(NamedTuple):
    """A public key: the SHA-256 of its DER in hex, and its PEM."""

    fingerprint: str
    pem: bytes


def parse_key(data: bytes, where: str) -> Key:
    """Read a public key in PEM.

    Raises:
        UsageError: It is none, or not one on P-256.
    """
    match = _PEM.fullmatch(data)
    try:
        der = base64.b64decode(b"".join(match.group(1).split()), validate=True) if match else b""
    except binascii.Error:
        der = b""
    if len(der) != 91 or not der.startswith(_PREFIX):
        raise UsageError(
            f"{where} is not a public key on P-256 in PEM; `openssl pkey -in private.pem -pubout` derives it from a "
            "private key that `openssl ecparam -name prime256v1 -genkey` made."
        )
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    pem = b"\n".join([b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""])
    return Key(hashlib.sha256(der).hexdigest(), pem)


def trusted_keys(folder: Path) -> list[Key]:
    """Return the keys that the device trusts.

    Raises:
        AgentError: A file there is none, others than its owner can write there, or there are more than two.
    """
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem" and not path.name.startswith("."))
    for path in (folder, *paths):
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AgentError(f"Others can write to {path}, so its keys can't be trusted; type `chmod go-w {path}`.")
    if len(paths) > MAX_KEYS:
        raise AgentError(f"{folder} holds {len(paths)} keys, and at most {MAX_KEYS} may be trusted; remove some.")
    return [_read(path) for path in paths]


def add_key(folder: Path, data: bytes, where: str) -> Key:
    """Trust a key from now on.

    Raises:
        UsageError: It is not a public key on P-256.
        AgentError: Two others are trusted already.
    """
    key = parse_key(data, where)
    _ask("pkey", "-pubin", "-noout", stdin=key.pem, refused=UsageError(f"{where} is not a point on P-256."))
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    trusted = trusted_keys(folder)
    if key not in trusted:
        require_space_for(trusted)
        write_atomic(folder / f"{key.fingerprint[:12]}.pem", key.pem)
    return key


def require_space_for(trusted: list[Key]) -> None:
    """Do nothing if another key than those may be ``trusted``.

    Raises:
        AgentError: There are two already.
    """
    if len(trusted) >= MAX_KEYS:
        raise AgentError(f"{MAX_KEYS} keys are trusted already; remove one first with `key remove FINGERPRINT`.")


def remove_key(folder: Path, fingerprint: str) -> Key:
    """Trust a key no longer, named by the beginning of its fingerprint.

    Raises:
        UsageError: None or more than one begins so.
    """
    found = [key for key in trusted_keys(folder) if fingerprint and key.fingerprint.startswith(fingerprint.lower())]
    if len(found) != 1:
        raise UsageError(f"{len(found)} of the trusted keys begin with {fingerprint!r}; `key list` shows them.")
    for path in folder.glob("*.pem"):
        if _read(path) == found[0]:
            path.unlink()
    flush(folder)
    return found[0]


def verify(keys: list[Key], data: bytes, signature: bytes) -> Key:
    """Return the key that signed ``data``.

    Args:
        keys: That are trusted.
        data: What was signed.
        signature: In DER.

    Raises:
        RefusedError: None of them did.
        UnusableError: There is no ``openssl`` command.
    """
    if not keys:
        raise RefusedError("This device trusts no key yet; add the public key with `key add FILE`.")
    refused = RefusedError(
        f"The manifest is not signed by any of the trusted keys ({', '.join(key.fingerprint[:12] for key in keys)})."
    )
    for key in keys:
        with tempfile.TemporaryDirectory(prefix="rexport-") as folder:
            public, signed = Path(folder, "key.pem"), Path(folder, "manifest.sig")
            public.write_bytes(key.pem)
            signed.write_bytes(signature)
            try:
                _ask("dgst", "-sha256", "-verify", str(public), "-signature", str(signed), stdin=data, refused=refused)
            except RefusedError:
                continue
        return key
    raise refused


def _ask(*arguments: str, stdin: bytes, refused: AgentError) -> None:
    """Run ``openssl``; nothing of the environment reaches it, so no configuration that would load other code."""
    openssl = shutil.which("openssl", path=os.environ.get("PATH", os.defpath))
    if openssl is None:
        raise UnusableError("There is no `openssl` command to verify signatures with; `apt-get install openssl`.")
    try:
        finished = subprocess.run(
            [openssl, *arguments],
            input=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"`openssl` did not answer within {_SECONDS:.0f} s.") from error
    if finished.returncode != 0:
        raise refused


def _read(path: Path) -> Key:
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            return parse_key(file.read(MAX_KEY_BYTES), str(path))
    except OSError as error:
        raise AgentError(f"The trusted key {path} can't be read: {error.strerror}.") from error
    except UsageError as error:
        raise AgentError(str(error)) from error
