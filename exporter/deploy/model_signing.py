"""``model.sig``: the signature of OpenSSF's model-signing 1.x, made without it.

    model_signing verify key DIR --signature DIR/model.sig --public_key KEY --ignore-paths DIR/manifest.sig

It is a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement, whose predicate
``https://model_signing/signature/v1.0`` lists the SHA-256 of every file; the subject's is over those digests, in the
order of their names. The signature is over DSSE's pre-authentication encoding (DSSE v1.0.2, protocol.md):

    PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body

There is no version, no time of expiry and no target in it, so devices go by ``manifest.sig``; this one is for whoever
checks models with OpenSSF's tool.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from rexport._errors import VerificationError
from rexport.device._container import MANIFEST, MODEL_SIGNATURE, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.deploy.container import Contents
    from rexport.deploy.signing import PrivateKey, PublicKey

__all__ = ["encoded", "sign", "verify"]

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_IGNORED = [SIGNATURE, MODEL_SIGNATURE]


def sign(contents: Contents, *, name: str, key: PrivateKey) -> bytes:
    """Return the bytes of ``model.sig`` for a bundle called ``name``.

    Raises:
        UnavailableError: As :meth:`PrivateKey.sign`.
    """
    payload = json.dumps(_statement(name, _digests(contents)), sort_keys=True, indent=1).encode()
    document = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(key.public_pem()).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(key.sign(encoded(payload))).decode(), "keyid": ""}],
        },
    }
    return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()


def verify(contents: Contents, key: PublicKey) -> None:
    """Do nothing if ``model.sig`` is by ``key`` and of the files that are there.

    Raises:
        VerificationError: It is not.
    """
    try:
        envelope = json.loads(contents.files[MODEL_SIGNATURE])["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        payload_type = envelope["payloadType"]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise VerificationError(f"{MODEL_SIGNATURE} can't be read ({error!r}); make the bundle again.") from error
    key.verify(encoded(payload, payload_type), signature)
    statement = json.loads(payload)
    name = statement["subject"][0]["name"]
    if statement != _statement(name, _digests(contents)):
        raise VerificationError(f"{MODEL_SIGNATURE} is of other files than the bundle's; get the bundle again.")


def encoded(payload: bytes, payload_type: str = _PAYLOAD_TYPE) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload: what is signed."""
    coded = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(coded), coded, len(payload), payload)


def _digests(contents: Contents) -> dict[str, bytes]:
    files = {MANIFEST: contents.manifest, **contents.files}
    return {name: hashlib.sha256(data).digest() for name, data in sorted(files.items()) if name not in _IGNORED}


def _statement(name: str, digests: Mapping[str, bytes]) -> dict[str, Any]:
    # in the order of paths, whose parts are compared one by one
    ordered = sorted(digests, key=lambda path: path.split("/"))
    root = hashlib.sha256(b"".join(digests[path] for path in ordered)).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": _IGNORED,
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digests[path].hex()} for path in ordered],
        },
    }
