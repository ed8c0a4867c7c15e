"""Keys and signatures are openssl's; other kinds of keys are named."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from rexport._errors import InputError, OutputError, VerificationError
from rexport.deploy.signing import load_private_key, load_public_key, new_key_pair
from tests.deploy._bundles import fixed_key

if TYPE_CHECKING:
    from pathlib import Path


def _openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_openssl_verifies_and_so_do_we(tmp_path: Path) -> None:
    public = new_key_pair(tmp_path / "k.pem")
    assert public == tmp_path / "k.pub.pem"
    key = load_private_key(tmp_path / "k.pem")
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(key.sign(b"data"))
    command = ("dgst", "-sha256", "-verify", "k.pub.pem", "-signature", "sig", "data")
    assert _openssl(tmp_path, *command) == "Verified OK\n"
    load_public_key(public).verify(b"data", key.sign(b"data"))
    (tmp_path / "data").write_bytes(b"Data")
    assert "Verified OK" not in _openssl(tmp_path, *command)
    with pytest.raises(VerificationError, match="fingerprint"):
        load_public_key(public).verify(b"Data", key.sign(b"data"))


def test_openssls_own_keys_and_signatures(tmp_path: Path) -> None:
    _openssl(tmp_path, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "k.pem")
    _openssl(tmp_path, "ec", "-in", "k.pem", "-pubout", "-out", "k.pub.pem")
    (tmp_path / "data").write_bytes(b"data")
    _openssl(tmp_path, "dgst", "-sha256", "-sign", "k.pem", "-out", "sig", "data")
    public = load_public_key(tmp_path / "k.pub.pem")
    public.verify(b"data", (tmp_path / "sig").read_bytes())
    assert load_private_key(tmp_path / "k.pem").public_pem() == public.pem()


def test_a_signature_is_the_same_every_time(tmp_path: Path) -> None:
    key = fixed_key(tmp_path)
    assert key.sign(b"data") == key.sign(b"data") != key.sign(b"Data")


@pytest.mark.parametrize("signature", [b"", b"0", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\xff" * 72])
def test_what_is_no_signature(tmp_path: Path, signature: bytes) -> None:
    with pytest.raises(VerificationError):
        fixed_key(tmp_path).public().verify(b"data", signature)


def test_a_private_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        public = new_key_pair(tmp_path / "k.pem")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    before = [path.read_bytes() for path in (tmp_path / "k.pem", public)]
    with pytest.raises(OutputError, match="never overwritten"):
        new_key_pair(tmp_path / "k.pem")
    assert [path.read_bytes() for path in (tmp_path / "k.pem", public)] == before
    (tmp_path / "k.pem").unlink()
    with pytest.raises(OutputError, match=r"k\.pub\.pem exists"):
        new_key_pair(tmp_path / "k.pem")
    assert not (tmp_path / "k.pem").exists()
    with pytest.raises(OutputError, match="does not exist"):
        new_key_pair(tmp_path / "none" / "k.pem")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (("genrsa", "-out", "k.pem", "1024"), "is an RSA key of 1024 bits"),
        (("genpkey", "-algorithm", "ed25519", "-out", "k.pem"), r"a key of another kind \(Ed25519\)"),
        (("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "k.pem"), "a key on the curve secp384r1"),
    ],
)
def test_keys_of_another_kind_are_named(tmp_path: Path, make: tuple[str, ...], words: str) -> None:
    _openssl(tmp_path, *make)
    _openssl(tmp_path, "pkey", "-in", "k.pem", "-pubout", "-out", "k.pub.pem")
    with pytest.raises(InputError, match=words):
        load_private_key(tmp_path / "k.pem")
    with pytest.raises(InputError, match=words):
        load_public_key(tmp_path / "k.pub.pem")


def test_keys_that_do_not_serve(tmp_path: Path) -> None:
    public = new_key_pair(tmp_path / "k.pem")
    with pytest.raises(InputError, match="is a public key, and signing takes the private one"):
        load_private_key(public)
    with pytest.raises(InputError, match="is a private key, which stays with whoever signs"):
        load_public_key(tmp_path / "k.pem")
    _openssl(tmp_path, "ec", "-in", "k.pem", "-aes128", "-passout", "pass:secret", "-out", "locked.pem")
    with pytest.raises(InputError, match="is encrypted"):
        load_private_key(tmp_path / "locked.pem")
    with pytest.raises(InputError, match="No such file"):
        load_private_key(tmp_path / "none.pem")
    with pytest.raises(InputError, match="Is a directory"):
        load_public_key(tmp_path)
    (tmp_path / "text").write_text("text")
    for load in (load_private_key, load_public_key):
        with pytest.raises(InputError, match="in PEM"):
            load(tmp_path / "text")
    (tmp_path / "large").write_bytes(b"-" * 100_000)
    with pytest.raises(InputError, match="too large"):
        load_public_key(tmp_path / "large")
