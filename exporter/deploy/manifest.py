"""The manifest of a bundle: what is in it, for which devices, and what a device has to get out of it.

A JSON document of schema ``rexport.bundle/1``: keys sorted, one space of indent, one newline at the end, so that equal
manifests have equal bytes. It is what gets signed, and it states the size and SHA-256 of every other file. A reader is
strict: a key too many or too few, a number of the wrong kind or a name that could leave the folder is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from rexport._errors import BundleError
from rexport.deploy._strict_json import Fields, loads
from rexport.device._errors import RefusedError
from rexport.device._manifest import parse_manifest
from rexport.model_file import Head

__all__ = [
    "LARGEST_BUNDLE",
    "LARGEST_MANIFEST",
    "MANIFEST",
    "RUNTIMES",
    "SCHEMA",
    "SIGNATURE",
    "Engine",
    "FileFacts",
    "Golden",
    "Limits",
    "Manifest",
    "Target",
    "require_file_names",
    "require_name",
    "require_specifier",
    "require_version",
]

SCHEMA = "rexport.bundle/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MODEL_SIGNATURE = "model.sig"
UNLISTED = (MANIFEST, SIGNATURE, MODEL_SIGNATURE)
"""The files that the manifest can't list, as they follow from it."""

LARGEST_MANIFEST = 256 * 1024
LARGEST_SIGNATURE = 1024
LARGEST_MODEL_SIGNATURE = 256 * 1024
LARGEST_BUNDLE = 2**32 - 1  # bytes: what a zip file holds without zip64
MOST_FILES = 64
MOST_PARTS = 4
_LONGEST_NAME = 255
RUNTIMES = ("tensorrt", "rtx", "onnxruntime")
"""What a device may run a model with; the first that is named in a manifest and usable is taken."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPECIFIER = re.compile(r"(>=|<|==)\d{1,9}(\.\d{1,9}){0,4}")
_DOTTED = re.compile(r"\d{1,9}(\.\d{1,9}){0,5}")
_HEAD = re.compile("|".join(Head))
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_EXPIRES = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_LARGEST_VERSION = 2**31 - 1

Object: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The devices that a bundle is for.

    Attributes:
        system: As ``platform.system()`` says in lower case, such as ``linux``.
        machines: As ``platform.machine()`` says, such as ``aarch64``.
        runtimes: Those that may run the model, each with the versions that will do: ``>=1.20``, ``<2``, ``==1.23.2``.
    """

    system: str = "linux"
    machines: tuple[str, ...]
    runtimes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine in the bundle: the ``version`` of its ``backend``, and the GPUs' compute capabilities times ten."""

    file: str
    backend: str
    version: str
    capabilities: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """An input and what the model gives for it, which a device compares with what it gets.

    Attributes:
        input: The file of what the model takes, an ``.npy``.
        logits: The file of its first output, float32.
        min_sqnr_db: The least ratio of the logits' power to that of the difference, in decibels.
        same_top1: Whether the largest logit has to be the same one.
    """

    input: str = "golden/input.npy"
    logits: str = "golden/logits.npy"
    min_sqnr_db: float = 30.0
    same_top1: bool = True


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the self-check on a device may take.

    Attributes:
        latency_ms: The longest median call on the golden input, in milliseconds; ``None`` without a bound.
        seconds: Of the whole check.
        memory_mib: Of its process.
    """

    latency_ms: float | None = None
    seconds: int = 120
    memory_mib: int = 2048


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file's size and the SHA-256 of its bytes, in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is.

    Attributes:
        name: Of what it installs.
        version: That a device does not go below once it had it.
        expires: The end of the time in which it may be installed, in UTC to the second; ``None`` without one.
        target: The devices it is for.
        model: The file of the model.
        head: What it gives: ``logits``, ``softmax`` or ``log-softmax``; ``None`` in bundles that do not say.
        engines: Made from it.
        classes: The file of the names of its outputs, a JSON list; ``None`` without.
        preprocessing: How pictures become its input (see ``deploy.bundle``).
        golden: What the device compares.
        limits: Of that comparison.
        profile: The file that ``rexport tune`` wrote; ``None`` without.
        table: The file of the calibration table; likewise.
        files: Size and hash of every file but the manifest and the signatures, by name.
    """

    name: str
    version: int
    expires: datetime | None
    target: Target
    model: str
    head: str | None = None
    engines: tuple[Engine, ...] = ()
    classes: str | None = None
    preprocessing: Object
    golden: Golden
    limits: Limits
    profile: str | None = None
    table: str | None = None
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the document of schema ``rexport.bundle/1``."""
        document = {"schema": SCHEMA, **asdict(self)}
        document["expires"] = None if self.expires is None else self.expires.strftime(_TIME)
        return document

    def to_bytes(self) -> bytes:
        """Return the bytes to sign.

        Raises:
            BundleError: They are not what :meth:`from_bytes` and the devices' agent read.
        """
        text = json.dumps(self.to_json(), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
        data = f"{text}\n".encode()
        Manifest.from_bytes(data)
        try:
            parse_manifest(data)
        except RefusedError as error:
            raise BundleError(f"No device would take this bundle: {error}") from error
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest strictly.

        Raises:
            BundleError: It says what it may not, lacks what it must say, or is larger than 256 KiB.
        """
        if len(data) > LARGEST_MANIFEST:
            raise BundleError(f"{MANIFEST} has {len(data):,} bytes, and devices read {LARGEST_MANIFEST:,} at most.")
        document = loads(MANIFEST, data)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            found = document.get("schema") if isinstance(document, dict) else None
            raise BundleError(f'{MANIFEST} is not of schema "{SCHEMA}" but of {found!r}; make the bundle again.')
        return _manifest(Fields(MANIFEST, "", {"head": None, **document}))


def require_name(name: str) -> None:
    """Raise :class:`BundleError` for a name that a bundle can't have."""
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"The name {name!r} won't do: lower-case letters, digits, '.', '_' and '-', at most 64, such as resnet50."
        )


def require_version(version: int) -> None:
    """Raise :class:`BundleError` for a version that a bundle can't have."""
    if not 1 <= version <= _LARGEST_VERSION:
        raise BundleError(f"The version {version} won't do: versions are whole numbers that count up from 1.")


def require_specifier(text: str) -> None:
    """Raise :class:`BundleError` for what says nothing about a version."""
    if not _SPECIFIER.fullmatch(text):
        raise BundleError(f"{text!r} says nothing about a version: write >=, < or == and numbers, such as >=1.20.")


def require_file_names(names: list[str]) -> None:
    """Raise :class:`BundleError` where files of these names can't lie in one bundle, on any file system."""
    if len(names) > MOST_FILES:
        raise BundleError(f"A bundle holds {MOST_FILES} files at most, and these are {len(names)}.")
    for name in names:
        parts = name.split("/")
        if len(name) > _LONGEST_NAME or len(parts) > MOST_PARTS or not all(map(_PART.fullmatch, parts)):
            raise BundleError(f"A file of a bundle can't be called {name!r}.")
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.lower(), name)
        if twin is not name:
            raise BundleError(f"The files {twin!r} and {name!r} of the bundle would be one on some file systems.")
    for name in seen:
        parents = name.split("/")[:-1]
        for count in range(1, len(parents) + 1):
            if "/".join(parents[:count]) in seen:
                raise BundleError(f"The bundle has a file and a folder called {'/'.join(parents[:count])!r}.")


_KEYS = {"schema", *Manifest.__dataclass_fields__}


def _manifest(document: Fields) -> Manifest:
    document.require_keys(_KEYS)
    files = _files(document.inner("files"))
    engines = document.items("engines", MOST_FILES)
    return Manifest(
        name=document.text("name", _NAME),
        version=document.whole("version", 1, _LARGEST_VERSION),
        expires=_expires(document),
        target=_target(document.inner("target")),
        model=document.file("model", files),
        head=None if document.values["head"] is None else document.text("head", _HEAD),
        engines=tuple(_engine(Fields(MANIFEST, f"engines[{index}].", one), files) for index, one in enumerate(engines)),
        classes=document.optional_file("classes", files),
        preprocessing=_preprocessing(document.inner("preprocessing")),
        golden=_golden(document.inner("golden"), files),
        limits=_limits(document.inner("limits")),
        profile=document.optional_file("profile", files),
        table=document.optional_file("table", files),
        files=files,
    )


def _files(fields: Fields) -> dict[str, FileFacts]:
    if not isinstance(fields.values, dict):
        raise BundleError(f"{MANIFEST}: files is not an object.")
    require_file_names([*fields.values, *UNLISTED])
    if not fields.values:
        raise BundleError(f"{MANIFEST} names no file.")
    found = {}
    for name in fields.values:
        facts = fields.inner(name)
        facts.require_keys({"bytes", "sha256"})
        found[name] = FileFacts(bytes=facts.whole("bytes", 0, LARGEST_BUNDLE), sha256=facts.text("sha256", _SHA256))
    if sum(facts.bytes for facts in found.values()) > LARGEST_BUNDLE:
        raise BundleError(f"{MANIFEST}: the files have more than the 4 GiB that a bundle holds.")
    return found


def _expires(document: Fields) -> datetime | None:
    if document.values["expires"] is None:
        return None
    try:
        return datetime.strptime(document.text("expires", _EXPIRES), _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise document.wrong("expires", "is no time") from None


def _target(fields: Fields) -> Target:
    fields.require_keys({"system", "machines", "runtimes"})
    machines, runtimes = fields.texts("machines", _WORD), fields.inner("runtimes")
    if not machines:
        raise fields.wrong("machines", "names no machine")
    if not isinstance(runtimes.values, dict) or not runtimes.values or not set(runtimes.values) <= set(RUNTIMES):
        raise fields.wrong("runtimes", f"has to name some of {', '.join(RUNTIMES)}")
    return Target(
        system=fields.text("system", _WORD),
        machines=machines,
        runtimes={name: runtimes.texts(name, _SPECIFIER) for name in runtimes.values},
    )


def _engine(fields: Fields, files: Collection[str]) -> Engine:
    fields.require_keys({"file", "backend", "version", "capabilities"})
    capabilities = fields.items("capabilities", 32)
    if not all(type(one) is int and 10 <= one <= 999 for one in capabilities):
        raise fields.wrong("capabilities", "has to be a list of numbers such as 86")
    return Engine(
        file=fields.file("file", files),
        backend=fields.text("backend", re.compile("tensorrt|rtx")),
        version=fields.text("version", _DOTTED),
        capabilities=tuple(capabilities),
    )


def _golden(fields: Fields, files: Collection[str]) -> Golden:
    fields.require_keys({"input", "logits", "min_sqnr_db", "same_top1"})
    return Golden(
        input=fields.file("input", files),
        logits=fields.file("logits", files),
        min_sqnr_db=fields.number("min_sqnr_db", above=-1000.0),
        same_top1=fields.truth("same_top1"),
    )


def _limits(fields: Fields) -> Limits:
    fields.require_keys({"latency_ms", "seconds", "memory_mib"})
    return Limits(
        latency_ms=None if fields.values["latency_ms"] is None else fields.number("latency_ms", above=0.0),
        seconds=fields.whole("seconds", 1, 3600),
        memory_mib=fields.whole("memory_mib", 16, 2**20),
    )


_PREPROCESSING = (
    *("takes", "size", "resize", "crop", "mean", "std", "interpolation"),
    *("color", "layout", "dtype", "scale", "in_graph"),
)


def _preprocessing(fields: Fields) -> dict[str, Any]:
    fields.require_keys(set(_PREPROCESSING))
    fields.text("takes", re.compile("normalised|pixels|pictures"))
    size = fields.whole("size", 1, 65_535)
    if fields.values["resize"] is not None:
        fields.whole("resize", size, 65_535)
    fields.three("mean", above=-math.inf)
    fields.three("std", above=0.0)
    for key in ("crop", "interpolation", "color", "layout", "dtype"):
        fields.text(key, _WORD)
    fields.text("scale", re.compile("1/255"))
    fields.texts("in_graph", _WORD)
    return dict(fields.values)
