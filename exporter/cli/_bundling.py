"""What ``rexport bundle`` was asked for, and doing it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import UsageError
from rexport.cli._console import note, print_json

if TYPE_CHECKING:
    from rexport.deploy.bundle import BundleOptions, MadeBundle
    from rexport.preprocessing import Preprocessing

__all__ = ["Done", "Request", "expiry", "machines", "report", "run", "runtimes"]

_SPAN = re.compile(r"(\d{1,5})([dw])")
_RUNTIME = re.compile(r"([a-z]+)((?:[<>=]=?[^,]*)(?:,[<>=]=?[^,]*)*)?")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of the command; what may be left out is ``None`` or empty."""

    model: Path | None
    output: Path | None
    key: Path | None
    name: str | None
    version: int | None
    expires: datetime | None
    engines: tuple[Path, ...]
    table: Path | None
    profile: Path | None
    classes: Path | None
    golden: Path | None
    system: str
    machines: tuple[str, ...]
    runtimes: dict[str, tuple[str, ...]]
    min_sqnr_db: float
    max_latency_ms: float | None
    max_seconds: int
    max_memory_mib: int
    resize: int | None
    mean: str | None
    std: str | None
    openssf: bool
    triton: Path | None
    triton_batch: int
    triton_gpu: bool
    new_key: Path | None

    def inputs(self) -> tuple[Path, ...]:
        """Return the files to read."""
        paths = (self.model, self.key, self.table, self.profile, self.classes, self.golden, *self.engines)
        return tuple(path for path in paths if path is not None)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was written; ``None`` where it was not asked for."""

    keys: tuple[Path, Path] | None = None
    bundle: tuple[Path, MadeBundle] | None = None
    triton: Path | None = None


def expiry(text: str, now: datetime | None = None) -> datetime | None:
    """Return the end of a date such as ``2027-11-27``, or of so many days from now; ``None`` for ``never``.

    Times are midnights in UTC, so that bundles made on one day are the same.

    Raises:
        UsageError: It is none of these.
    """
    if text == "never":
        return None
    span = _SPAN.fullmatch(text)
    try:
        if span is None:
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1 + int(span[1]) * (7 if span[2] == "w" else 1))
    except (ValueError, OverflowError):
        raise UsageError(
            f"--expires takes a date such as 2027-11-27, a time such as 30d or 26w, or never, not {text!r}."
        ) from None


def machines(text: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return () if text is None else tuple(filter(None, (part.strip() for part in text.split(","))))


def runtimes(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Return what texts such as ``onnxruntime>=1.20,<2`` say of the versions of runtimes.

    Raises:
        UsageError: One says nothing.
    """
    found = {}
    for text in texts:
        match = _RUNTIME.fullmatch(text.replace(" ", ""))
        if match is None:
            raise UsageError(f"--runtime takes a name and versions such as 'onnxruntime>=1.20,<2', not {text!r}.")
        found[match[1]] = tuple(match[2].split(",")) if match[2] else ()
    return found


def run(request: Request) -> Done:
    """Do what was asked for.

    Raises:
        RexportError: As :mod:`rexport.deploy` says.
    """
    if request.key is not None and request.new_key is not None:
        raise UsageError("--key names a key that exists and --new-key makes one; give one of them.")
    if request.model is None:
        if request.new_key is None:
            raise UsageError("Name an ONNX file to bundle, or make a key pair with --new-key private.pem.")
        return Done(keys=_make_keys(request))
    signs = (request.key or request.new_key) is not None
    if not signs and (request.triton is None or request.output is not None):
        raise UsageError(
            "A bundle is signed: name your private key with --key, or make a pair with --new-key private.pem."
        )
    from rexport._apart import require_apart
    from rexport.deploy.bundle import bundle_of, require_sensible
    from rexport.deploy.container import require_folder, require_target, write
    from rexport.deploy.payload import collect
    from rexport.deploy.signing import load_private_key
    from rexport.deploy.triton import TritonOptions, write_repository

    key = None if request.key is None else load_private_key(request.key)
    options = _options(request, request.model, versioned=signs)
    require_sensible(options)
    output = request.output or Path(f"{options.name}-{options.version}.rxb")
    require_apart((output,), request.inputs())
    if signs:
        require_target(output)
    if request.triton is not None and (request.triton / options.name).exists():
        require_folder(request.triton / options.name)
    payload = collect(request.model, options)
    keys = _make_keys(request)  # once nothing but writing can fail, so that a mistake leaves none behind
    if keys is not None:
        key = load_private_key(keys[0])
    bundle = triton = None
    if key is not None:
        made = bundle_of(payload, key=key, options=options)
        write(made.contents, output)
        bundle = (output, made)
    if request.triton is not None:
        how = TritonOptions(max_batch=request.triton_batch, gpu=request.triton_gpu)
        triton = write_repository(request.triton, options.name, payload, how)
    return Done(keys=keys, bundle=bundle, triton=triton)


def report(done: Done, *, as_json: bool) -> None:
    """Say what was written."""
    for text in () if done.bundle is None else done.bundle[1].notes:
        note(text)
    if as_json:
        print_json(_document(done))
        return
    if done.keys is not None:
        private, public = done.keys
        print(f"{private}: the private key; whoever has it can sign for your devices")
        print(f"{public}: the public key, for devices")
    if done.bundle is not None:
        path, made = done.bundle
        manifest = made.manifest
        size = sum(facts.bytes for facts in manifest.files.values())
        until = "without expiry" if manifest.expires is None else f"to be installed until {manifest.expires:%Y-%m-%d}"
        print(f"{path}: {manifest.name} {manifest.version}, {size / 2**20:.2f} MiB, {until}")
        target = manifest.target
        with_versions = (name + ",".join(versions) for name, versions in target.runtimes.items())
        print(f"for {target.system} on {', '.join(target.machines)}; runs on {' or '.join(with_versions)}")
    if done.triton is not None:
        print(f"{done.triton}: for Triton; serve it with --model-repository={done.triton.parent}")


def _document(done: Done) -> dict[str, Any]:
    document: dict[str, Any] = {"schema": "rexport.bundle.made/1", "file": None, "manifest": None}
    if done.bundle is not None:
        path, made = done.bundle
        document["file"], document["manifest"] = str(path), made.manifest.to_json()
        document["manifest_sha256"] = made.manifest.sha256
        document["notes"] = list(made.notes)
    document["triton"] = None if done.triton is None else str(done.triton)
    document["keys"] = None if done.keys is None else dict(zip(("private", "public"), map(str, done.keys), strict=True))
    return document


def _make_keys(request: Request) -> tuple[Path, Path] | None:
    if request.new_key is None:
        return None
    from rexport.deploy.signing import new_key_pair

    return request.new_key, new_key_pair(request.new_key)


def _options(request: Request, model: Path, *, versioned: bool) -> BundleOptions:
    from rexport.deploy.bundle import BundleOptions
    from rexport.device._manifest import Limits

    if request.version is None and versioned:
        raise UsageError(
            "State the bundle's --version, a whole number from 1 up; devices refuse one lower than they had."
        )
    return BundleOptions(
        name=_name(model) if request.name is None else request.name,
        version=1 if request.version is None else request.version,
        expires=request.expires,
        system=request.system,
        machines=request.machines,
        runtimes=request.runtimes,
        engines=request.engines,
        table=request.table,
        profile=request.profile,
        classes=request.classes,
        golden=request.golden,
        min_sqnr_db=request.min_sqnr_db,
        limits=Limits(
            latency_ms=request.max_latency_ms, seconds=request.max_seconds, memory_mib=request.max_memory_mib
        ),
        preprocessing=_preprocessing(request, model),
        openssf=request.openssf,
    )


def _name(model: Path) -> str:
    """Return a name that a bundle may have, from that of the file."""
    name = _NOT_IN_NAMES.sub("-", model.stem.lower()).strip("-._")[:64]
    if not name:
        raise UsageError(f"The name of {model} won't do for a bundle; give one with --name.")
    return name


def _preprocessing(request: Request, model: Path) -> Preprocessing:
    from rexport.cli._options import model_preprocessing
    from rexport.model_file import load

    return model_preprocessing(load(model), model, resize=request.resize, mean=request.mean, std=request.std)
