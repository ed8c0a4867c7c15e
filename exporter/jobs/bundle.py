"""A signed bundle of a model for devices, a model repository for Triton, or both; and a key pair to sign with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, WRITE, require_files_apart
from rexport._errors import UsageError
from rexport._progress import Note, unsaid
from rexport.deploy.bundle import make_bundle
from rexport.deploy.container import require_folder, require_target, write
from rexport.deploy.manifest import require_name, require_version
from rexport.deploy.payload import BundleOptions, collect
from rexport.deploy.signing import load_private_key, new_key_pair, public_path
from rexport.deploy.triton import TritonOptions, write_repository
from rexport.jobs.result import JobResult
from rexport.model_file import load
from rexport.model_inputs import preprocessing_of
from rexport.preprocessing import PictureOptions

if TYPE_CHECKING:
    from rexport.deploy.bundle import MadeBundle

__all__ = ["BundleRequest", "BundleResult", "run"]

_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class BundleRequest(BundleOptions):
    """What to make; the rest of it is :class:`BundleOptions`.

    Attributes:
        model: An ONNX file that takes pictures; without, a key pair is all that is made.
        output: The ``.rxb`` file, or the folder, for the bundle; by default ``NAME-VERSION.rxb``.
        key: The private key to sign with.
        new_key: Where a new private key goes, the public one beside it; the bundle is signed with it.
        name: What devices call it; by default as the model's file.
        version: Of the bundle, from 1 on; devices refuse one that is lower than they had.
        pictures: What takes the place of what the file states of its pictures.
        triton: The model repository to write for Triton; without a key, it is all that is made.
        triton_options: How Triton runs the model.

    Raises:
        UsageError: The values do not go together.
        BundleError: The name, the version or another value is none that a bundle can have.
    """

    model: Path | None = field(default=None, metadata=READ)
    output: Path | None = field(default=None, metadata=WRITE)
    key: Path | None = field(default=None, metadata=READ)
    new_key: Path | None = field(default=None, metadata=WRITE)
    name: str | None = None
    version: int | None = None
    pictures: PictureOptions = field(default_factory=PictureOptions)
    triton: Path | None = field(default=None, metadata=WRITE)
    triton_options: TritonOptions = field(default_factory=TritonOptions)

    def __post_init__(self) -> None:
        if self.key is not None and self.new_key is not None:
            raise UsageError("--key names an existing key and --new-key makes one; pass only one of them.")
        if self.model is None and self.new_key is None:
            raise UsageError("Name an ONNX file to bundle, or make a key pair with --new-key private.pem.")
        if not self.signs and (self.triton is None or self.output is not None):
            raise UsageError(
                "A bundle is signed: name your private key with --key, or make a pair with --new-key private.pem."
            )
        if self.model is not None:
            require_name(self.bundle_name)
            if self.signs and self.version is None:
                raise UsageError(
                    "State the bundle's --version, a whole number from 1 up; devices refuse one lower than they had."
                )
        if self.version is not None:
            require_version(self.version)
        super().__post_init__()

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with, or will be."""
        return self.key is not None or self.new_key is not None

    @property
    def bundle_name(self) -> str:
        """``name``, or what can be kept of that of the model's file."""
        if self.name is not None or self.model is None:
            return self.name or ""
        name = _NOT_IN_NAMES.sub("-", self.model.stem.lower()).strip("-._")[:64]
        if not name:
            raise UsageError(f"The name of {self.model} is not valid for a bundle; pass one with --name.")
        return name

    @property
    def bundle_file(self) -> Path:
        """Where the bundle goes."""
        return self.output or Path(f"{self.bundle_name}-{self.version or 1}.rxb")

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """What is written without being named."""
        paths: list[Path] = []
        if self.new_key is not None:
            paths.append(public_path(self.new_key))
        if self.model is not None and self.signs and self.output is None:
            paths.append(self.bundle_file)
        return tuple(paths)


@dataclass(frozen=True, kw_only=True, repr=False)
class BundleResult(JobResult):
    """What was made; ``None`` for what was not.

    Attributes:
        keys: The files of the private and the public key.
        file: The bundle's file or folder.
        bundle: What is in it.
        triton: The model's folder in the repository.
    """

    keys: tuple[Path, Path] | None = None
    file: Path | None = None
    bundle: MadeBundle | None = None
    triton: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.bundle.made/1``."""
        document: dict[str, Any] = {"schema": "rexport.bundle.made/1", "file": None, "manifest": None}
        if self.bundle is not None:
            manifest = self.bundle.manifest
            document |= {"file": str(self.file), "manifest": manifest.to_json(), "manifest_sha256": manifest.sha256}
            document["notes"] = list(self.bundle.notes)
        document["triton"] = self.triton and str(self.triton)
        document["keys"] = self.keys and {"private": str(self.keys[0]), "public": str(self.keys[1])}
        return document

    def facts(self) -> dict[str, str]:
        """Return the files that were made."""
        facts = {}
        if self.bundle is not None:
            manifest = self.bundle.manifest
            facts["bundle"] = f"{self.file}: {manifest.name} version {manifest.version}"
        if self.triton is not None:
            facts["Triton model"] = str(self.triton)
        if self.keys is not None:
            facts["private key"], facts["public key"] = map(str, self.keys)
        return facts


def run(request: BundleRequest, *, note: Note = unsaid) -> BundleResult:
    """Make a key pair, a bundle, a model repository for Triton, or what of it the request names.

    Raises:
        InputError: The key, the model or another file can't be read, or does not belong to the model.
        UsageError: What would be written is read.
        OutputError: Something can't be written.
        UnavailableError: cryptography is not installed, or can't sign deterministically.
    """
    require_files_apart(request)
    if request.model is None:
        return BundleResult(keys=_make_keys(request))
    key = load_private_key(request.key) if request.key else None
    options = _with_preprocessing(request, request.model, note)
    name, version = request.bundle_name, request.version or 1
    output = request.bundle_file
    if request.signs:
        require_target(output)
    if request.triton is not None and (request.triton / name).exists():
        require_folder(request.triton / name)
    payload = collect(request.model, options)
    keys = _make_keys(request)  # once nothing but writing can fail, so that a mistake leaves none behind
    if keys is not None:
        key = load_private_key(keys[0])
    result = BundleResult(keys=keys)
    if key is not None:
        bundle = make_bundle(payload, name=name, version=version, key=key, options=options)
        for text in bundle.notes:
            note(text)
        write(bundle.contents, output)
        result = replace(result, file=output, bundle=bundle)
    if request.triton is not None:
        result = replace(result, triton=write_repository(request.triton, name, payload, request.triton_options))
    return result


def _make_keys(request: BundleRequest) -> tuple[Path, Path] | None:
    return None if request.new_key is None else (request.new_key, new_key_pair(request.new_key))


def _with_preprocessing(request: BundleRequest, model: Path, note: Note) -> BundleRequest:
    """Return the request with how pictures become the model's input; where that is assumed, it is noted."""
    if request.preprocessing is not None:
        return request
    return replace(request, preprocessing=preprocessing_of(load(model), model, request.pictures, note=note))
