"""OpenSSF's signature, checked by its published formulas, and by OpenSSF's own verifier where there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rexport._errors import VerificationError
from rexport.deploy import container, model_signing
from tests.deploy._bundles import fixed_key, made

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.container import Contents

_PYTHON = os.environ.get("REXPORT_MODEL_SIGNING", "")


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return made(tmp_path, openssf=True).contents


def test_it_is_as_the_formats_say(contents: Contents, tmp_path: Path) -> None:
    bundle = json.loads(contents.files["model.sig"])
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    pem = fixed_key(tmp_path).public_pem()
    assert bundle["verificationMaterial"] == {
        "publicKey": {"hint": hashlib.sha256(pem).hexdigest()},
        "tlogEntries": [],
    }
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    encoded = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode() + payload
    public = load_pem_public_key(pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded, ec.ECDSA(SHA256()))
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    resources = statement["predicate"]["resources"]
    files = {"manifest.json": contents.manifest, **contents.files}
    names = ["classes.json", "golden/input.npy", "golden/logits.npy", "manifest.json", "model.onnx"]
    assert [one["name"] for one in resources] == names
    assert [one["digest"] for one in resources] == [hashlib.sha256(files[name]).hexdigest() for name in names]
    root = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    assert statement["subject"] == [{"name": "tiny", "digest": {"sha256": root}}]


def test_dsses_own_example() -> None:
    # protocol.md of DSSE v1.0.2
    assert model_signing.encoded(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("signature", [b"", b"{}", b'{"dsseEnvelope": {"payload": "!"}}', b"[" * 100_000])
def test_what_can_not_be_read(contents: Contents, tmp_path: Path, signature: bytes) -> None:
    broken = container.Contents(
        manifest=contents.manifest,
        signature=contents.signature,
        files={**contents.files, "model.sig": signature},
    )
    with pytest.raises(VerificationError, match="can't be read"):
        model_signing.verify(broken, fixed_key(tmp_path).public())


@pytest.mark.slow
@pytest.mark.skipif(
    not _PYTHON,
    reason="REXPORT_MODEL_SIGNING names no Python with model-signing 1.1 and pyOpenSSL; make one with "
    "`python -m venv V && V/bin/pip install model-signing==1.1.1 pyopenssl`, and set it to V/bin/python",
)
def test_openssfs_verifier(contents: Contents, tmp_path: Path) -> None:
    container.write(contents, tmp_path / "b")
    (tmp_path / "k.pub.pem").write_bytes(fixed_key(tmp_path).public_pem())

    def verify() -> subprocess.CompletedProcess[str]:
        command = [_PYTHON, "-m", "model_signing", "verify", "key", "b", "--signature", "b/model.sig"]
        return subprocess.run([*command, "--public_key", "k.pub.pem"], cwd=tmp_path, capture_output=True, text=True)

    done = verify()
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr
    with (tmp_path / "b" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert verify().returncode != 0
