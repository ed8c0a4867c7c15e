"""A signed bundle from a model: everything that devices need, and what tells them that it is right.

The file names in it are fixed, so that a bundle says nothing of the folders it was made in:

    manifest.json  manifest.sig  [model.sig]
    model.onnx  golden/input.npy  golden/logits.npy  [golden/output-N.npy]
    [classes.json]  [engines/BACKEND-VERSION-CAPABILITIES.engine]  [profile.toml]  [table.json]
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnxruntime

from rexport.classifier_head import head_of
from rexport.deploy import model_signing
from rexport.deploy.container import Contents
from rexport.deploy.golden import npy
from rexport.deploy.manifest import from_bytes, require_name, require_version, to_bytes
from rexport.deploy.payload import MODEL
from rexport.device._container import MODEL_SIGNATURE
from rexport.device._manifest import OUTPUTS, FileEntry, Golden, Manifest, Target
from rexport.model_file import default_opset
from rexport.quantization import OPENVINO
from rexport.quantization.targets import DEVICE_MACHINES, DEVICE_RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.deploy.payload import BundleOptions, Payload
    from rexport.deploy.signing import PrivateKey
    from rexport.deploy.vetting import VettedModel
    from rexport.preprocessing import Preprocessing

__all__ = ["MadeBundle", "make_bundle", "sign_files"]

_CLASSES, _PROFILE, _TABLE = "classes.json", "profile.toml", "table.json"
# The newest opset and IR version that each ONNX Runtime loads, those before it included, and has a residual network's
# operators for. Of opset 23, 1.23 lacks QuantizeLinear.
_ONNXRUNTIMES = (("1.17", 20, 9), ("1.18", 21, 10), ("1.21", 22, 10), ("1.24", 25, 13), ("1.25", 26, 13))
_SAFE_DB = 6.0  # how far the demanded ratio is to be above the one at which the largest score may change


@dataclass(frozen=True, kw_only=True)
class MadeBundle:
    """A bundle that was made, what its manifest says, and what its maker should know."""

    contents: Contents
    manifest: Manifest
    notes: tuple[str, ...]


def make_bundle(payload: Payload, *, name: str, version: int, key: PrivateKey, options: BundleOptions) -> MadeBundle:
    """Make a signed bundle; the same payload, options and key give the same bytes.

    Args:
        payload: What :func:`rexport.deploy.payload.collect` read.
        name: Of what it installs: lower-case letters, digits, ``.``, ``_``, ``-``.
        version: From 1 on; devices refuse one that is lower than they had.
        key: To sign with.
        options: What the bundle says beside that.

    Raises:
        BundleError: The name, the version or what ``options`` say won't do.
        UnavailableError: Deterministic signatures are not available.
    """
    require_name(name)
    require_version(version)
    others = {name: f"golden/output-{number}.npy" for number, name in enumerate(payload.golden.others, 1)}
    is_of_classifier = payload.golden.is_of_classifier
    golden = Golden(min_sqnr_db=options.min_sqnr_db, same_top1=is_of_classifier, others=others)
    files = _files(payload, golden)
    names = {name: name for name in files}
    manifest = Manifest(
        name=name,
        version=version,
        expires=options.expires,
        target=_target(payload, options),
        model=MODEL,
        head=str(head_of(payload.model.model)) if is_of_classifier else OUTPUTS,
        engines=tuple(engine for engine, _ in payload.engines),
        classes=names.get(_CLASSES),
        preprocessing=_described(payload.preprocessing),
        golden=golden,
        limits=options.limits,
        profile=names.get(_PROFILE),
        table=names.get(_TABLE),
    )
    contents = sign_files(manifest, files, key)
    if options.openssf:
        signature = model_signing.sign(contents, name=name, key=key)
        contents = replace(contents, files={**contents.files, MODEL_SIGNATURE: signature})
    signed = from_bytes(contents.manifest)
    return MadeBundle(contents=contents, manifest=signed, notes=tuple(_notes(payload, signed)))


def _files(payload: Payload, golden: Golden) -> dict[str, bytes]:
    optional = {_PROFILE: payload.profile, _TABLE: payload.table}
    if payload.classes:
        optional[_CLASSES] = (json.dumps(payload.classes, ensure_ascii=False, indent=0) + "\n").encode()
    return {
        MODEL: payload.model.data,
        golden.input: npy(payload.golden.input),
        golden.logits: npy(payload.golden.logits),
        **{file: npy(payload.golden.others[name]) for name, file in golden.others.items()},
        **{engine.file: data for engine, data in payload.engines},
        **{name: data for name, data in optional.items() if data},
    }


def _target(payload: Payload, options: BundleOptions) -> Target:
    quantization = payload.model.quantization
    runtimes: tuple[str, ...] = DEVICE_RUNTIMES
    machines: tuple[str, ...] = DEVICE_MACHINES
    if quantization is not None and quantization.target is not None:
        runtimes, machines = quantization.target.device_runtimes, quantization.target.machines
    default: dict[str, tuple[str, ...]] = dict.fromkeys(
        [*runtimes, *(engine.backend for engine, _ in payload.engines)], ()
    )
    if "onnxruntime" in default:
        default["onnxruntime"] = (_oldest_onnxruntime(payload.model),)
    return Target(
        system=options.system,
        machines=tuple(sorted(set(options.machines or machines))),
        runtimes=options.runtimes or default,
    )


def _oldest_onnxruntime(model: VettedModel) -> str:
    """Return the oldest version that is sure to run the model: of newer operators, the one that just did."""
    opset, ir_version = default_opset(model.model), model.model.ir_version
    for version, its_opset, its_ir in _ONNXRUNTIMES:
        if opset <= its_opset and ir_version <= its_ir:
            return f">={version}"
    return ">=" + ".".join(onnxruntime.__version__.split(".")[:2])


def _described(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what the manifest says of it: what the model's metadata says, and the rest of it in words.

    Who makes a bundle has read whether it is assumed, and lets it hold: it is a fact for devices.
    """
    fields: dict[str, Any] = json.loads(replace(preprocessing, assumed=False).to_json())
    return {
        **fields,
        "takes": str(preprocessing.takes),
        "crop": "centre",
        "interpolation": f"{preprocessing.interpolation}-antialiased",
    }


def _notes(payload: Payload, manifest: Manifest) -> list[str]:
    notes = []
    quantization = payload.model.quantization
    if quantization is not None and quantization.needs_exact_sums and "x86_64" in manifest.target.machines:
        notes.append(
            "On x86 devices without VNNI, exact sums of this model take longer; for those, quantize with "
            "--reduce-range."
        )
    if quantization is not None and quantization.target == OPENVINO:
        notes.append(
            "The model was quantized for OpenVINO, and devices run it in ONNX Runtime, where fewer of its "
            "layers are INT8; quantize with --target x86 for them."
        )
    if not payload.golden.is_of_classifier:
        notes.append(
            f"{payload.model.path} gives no scores of classes: devices compare its outputs by their SQNR alone, and "
            "`rexport-agent run` does not classify with it."
        )
    needed = payload.golden.needed_db()
    if needed + _SAFE_DB > manifest.golden.min_sqnr_db:
        notes.append(
            f"The two largest scores of the golden input are so close that noise of {needed:.0f} dB can exchange them, "
            f"and devices may have {manifest.golden.min_sqnr_db:.0f} dB; name another input with --golden."
        )
    return notes


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
