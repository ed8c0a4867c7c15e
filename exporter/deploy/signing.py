"""Keys and signatures: ECDSA on the curve P-256 over SHA-256, in PEM and DER, as ``openssl`` reads and writes them.

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem
    openssl ec -in private.pem -pubout -out private.pub.pem
    openssl dgst -sha256 -verify private.pub.pem -signature manifest.sig manifest.json

The number that each ECDSA signature needs is derived from the key and the message (RFC 6979), so that the same bundle
has the same bytes whenever it is made, and no signature hangs on the quality of random numbers.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import InputError, OutputError, UnavailableError, VerificationError
from rexport._files import check_writable, write_bytes
from rexport.device._keys import parse_key

try:  # comes with rexport[deploy]; see _require_cryptography
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PrivateKey", "PublicKey", "load_private_key", "load_public_key", "new_key_pair", "public_path"]

_LARGEST_KEY = 64 * 1024
_HOW = "make a pair with `rexport bundle --new-key private.pem`"


@dataclass(frozen=True)
class PublicKey:
    """What signatures are verified with."""

    key: ec.EllipticCurvePublicKey

    def pem(self) -> bytes:
        """Return it as devices keep it."""
        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def fingerprint(self) -> str:
        """Return the SHA-256 of its DER form, in hex."""
        return parse_key(self.pem(), "The key").fingerprint

    def verify(self, data: bytes, signature: bytes) -> None:
        """Do nothing if ``signature`` is that of ``data`` by this key.

        Raises:
            VerificationError: It is not.
        """
        try:
            self.key.verify(signature, data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise VerificationError(
                f"The signature is not by the key with fingerprint {self.fingerprint()[:12]}…, or what it signed was "
                "changed; use the public key of who made the bundle, or get the bundle again."
            ) from None


@dataclass(frozen=True)
class PrivateKey:
    """What bundles are signed with."""

    key: ec.EllipticCurvePrivateKey

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data`` in DER; the same for the same data.

        Raises:
            UnavailableError: The OpenSSL behind ``cryptography`` has no deterministic signatures.
        """
        try:
            return self.key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))
        except (UnsupportedAlgorithm, TypeError) as error:  # TypeError: before cryptography 43
            raise UnavailableError(
                "This installation of cryptography can't make deterministic signatures (RFC 6979); install a newer "
                "one with `pip install 'rexport[deploy]'`."
            ) from error

    def public(self) -> PublicKey:
        """Return the key that verifies its signatures."""
        return PublicKey(self.key.public_key())

    def public_pem(self) -> bytes:
        """Return that key as devices keep it."""
        return self.public().pem()


def public_path(private: Path) -> Path:
    """Return where the public half of a pair lies: ``key.pem`` and ``key.pub.pem``."""
    return private.with_name(f"{private.stem}.pub.pem")


def new_key_pair(private: Path) -> Path:
    """Make a key pair; write the private key to ``private``, for its owner alone, and the public one beside it.

    Returns:
        The path of the public key.

    Raises:
        OutputError: One of the two exists, or can't be written.
        UnavailableError: ``cryptography`` is not installed.
    """
    _require_cryptography()
    public = public_path(private)
    for path in (private, public):
        if path.is_symlink() or path.exists():
            raise OutputError(f"{path} exists, and keys are never overwritten; name another file.")
        check_writable(path)
    key = PrivateKey(ec.generate_private_key(ec.SECP256R1()))
    data = key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        # the mode is set when the file is made, and a file that appears meanwhile is left alone
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            if not isinstance(error, FileExistsError):
                private.unlink()
        raise OutputError(f"{private} was not written: {error.strerror}.") from error
    write_bytes(public, key.public_pem())
    return public


def load_private_key(path: Path) -> PrivateKey:
    """Read a private key, P-256 in PEM without a password.

    Raises:
        InputError: It can't be read, or is another kind of key.
        UnavailableError: ``cryptography`` is not installed.
    """
    data = _read(path, "private")
    if b"PUBLIC KEY-----" in data and b"PRIVATE KEY-----" not in data:
        raise InputError(f"{path} is a public key, and signing takes the private one; {_HOW}.")
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:  # what cryptography raises for a key with a password
        raise InputError(
            f"{path} is encrypted, and rexport asks for no passwords; write it without one with "
            f"`openssl pkey -in {path} -out plain.pem`, and keep that file from others."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is not a private key in PEM; {_HOW}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise InputError(f"{path} is {_kind(key)}, and devices verify ECDSA on P-256 alone; {_HOW}.")
    return PrivateKey(key)


def load_public_key(path: Path) -> PublicKey:
    """Read a public key, P-256 in PEM.

    Raises:
        InputError: It can't be read, or is another kind of key.
        UnavailableError: ``cryptography`` is not installed.
    """
    data = _read(path, "public")
    if b"PRIVATE KEY-----" in data:
        raise InputError(
            f"{path} is a private key, which stays with whoever signs; name the public one, which `rexport bundle "
            f"--new-key` writes beside it, or write it with `openssl pkey -in {path} -pubout`."
        )
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is not a public key in PEM; {_HOW}.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InputError(f"{path} is {_kind(key)}, and devices verify ECDSA on P-256 alone; {_HOW}.")
    return PublicKey(key)


def _read(path: Path, which: str) -> bytes:
    _require_cryptography()
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_KEY + 1)
    except OSError as error:
        raise InputError(f"The {which} key {path} can't be read: {error.strerror}; {_HOW}.") from error
    if len(data) > _LARGEST_KEY:
        raise InputError(f"{path} is too large to be a key; {_HOW}.")
    return data


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return f"a key on the curve {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"an RSA key of {key.key_size} bits"
    name = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return f"a key of another kind ({name})"


def _require_cryptography() -> None:
    if _missing is not None:
        raise UnavailableError(
            "Keys and signatures need the package cryptography: pip install 'rexport[deploy]'."
        ) from _missing
