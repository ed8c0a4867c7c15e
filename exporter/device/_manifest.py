"""The manifest of a bundle: what is in it, for which devices, and what a device has to get out of it.

A JSON document of schema ``rexport.bundle/1``: keys sorted, one space of indent, one newline at the end, so that equal
manifests have equal bytes. It is what gets signed, and it states the size and SHA-256 of every other file. It is read
strictly: a key too many or too few, a number of the wrong kind or a name that could leave the folder is an error.

Rexport makes bundles with this module too. A device reads a manifest only after its signature was found good, and from
the very bytes that were signed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ._container import LIMITS, MANIFEST
from ._errors import RefusedError
from ._strict_json import Fields, loads

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = [
    "MAX_FILES",
    "OUTPUTS",
    "RUNTIMES",
    "Engine",
    "FileEntry",
    "Golden",
    "Limits",
    "Manifest",
    "Target",
    "parse_manifest",
    "read_manifest",
    "require_file_names",
]

SCHEMA = "rexport.bundle/1"
RUNTIMES = ("tensorrt", "rtx", "onnxruntime")
"""What a device may run a model with; the first that a manifest names and that is usable is taken."""
MAX_FILES, MAX_PARTS, MAX_BYTES = 64, 4, (4 << 30) - (1 << 20)  # all offsets in an .rxb have 32 bits
MAX_VERSION = 2**31 - 1
OUTPUTS = "outputs"
"""The head of a model that gives no scores of classes, such as maps."""
_MAX_OUTPUTS, _MAX_OUTPUT_NAME = 32, 256

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SPECIFIER = re.compile(r"(>=|<|==)\d{1,9}(\.\d{1,9}){0,4}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOTTED = re.compile(r"\d{1,9}(\.\d{1,9}){0,5}")
_HEAD = re.compile(f"logits|softmax|log-softmax|{OUTPUTS}")
_EXPIRES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PREPROCESSING = (
    *("takes", "size", "resize", "crop", "mean", "std", "interpolation"),
    *("color", "layout", "dtype", "scale", "in_graph"),
)


class FileEntry(NamedTuple):
    """A file's size in bytes, and the SHA-256 of its content in hex."""

    bytes: int
    sha256: str


class Target(NamedTuple):
    """The devices that a bundle is for.

    Attributes:
        machines: As ``platform.machine()`` says, such as ``aarch64``.
        runtimes: Those that may run the model, each with the versions that will do: ``>=1.20``, ``<2``, ``==1.23.2``.
        system: As ``platform.system()`` says in lower case, such as ``linux``.
    """

    machines: Sequence[str]
    runtimes: Mapping[str, Sequence[str]]
    system: str = "linux"


class Engine(NamedTuple):
    """An engine in the bundle: the ``version`` of its ``backend``, and the GPUs' compute capabilities times ten."""

    file: str
    backend: str
    version: str
    capabilities: Sequence[int]


class Golden(NamedTuple):
    """An input and what the model gives for it, which a device compares with what it gets.

    Attributes:
        input: The file of what the model takes, an ``.npy``.
        logits: The file of its first output, float32.
        min_sqnr_db: The least ratio of an output's power to that of the difference, in decibels.
        same_top1: Whether the largest logit has to be the same one.
        others: The files of its further outputs, float32, by the outputs' names; a classifier has none.
    """

    input: str = "golden/input.npy"
    logits: str = "golden/logits.npy"
    min_sqnr_db: float = 30.0
    same_top1: bool = True
    others: Mapping[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """Return what the document says; agents that know no further outputs read it where there are none."""
        document = self._asdict()
        if not self.others:
            del document["others"]
        return document


class Limits(NamedTuple):
    """What the self-check on a device may take.

    Attributes:
        latency_ms: The longest median call on the golden input, in milliseconds; ``None`` without a bound.
        seconds: Of the whole check.
        memory_mib: Of its process.
    """

    latency_ms: float | None = None
    seconds: int = 120
    memory_mib: int = 2048


class Manifest(NamedTuple):
    """What a bundle is.

    Attributes:
        name: Of what it installs.
        version: That a device does not go below once it had it.
        expires: The end of the time in which it may be installed, in UTC to the second; ``None`` without one.
        target: The devices it is for.
        model: The file of the model.
        preprocessing: How pictures become its input.
        golden: What the device compares.
        limits: Of that comparison.
        head: What the model gives: ``logits``, ``softmax``, ``log-softmax``, or ``outputs`` that are no scores of
            classes; ``None`` in bundles that do not say.
        engines: Made from it.
        classes: The file of the names of its outputs, a JSON list; ``None`` without.
        profile: The file that ``rexport tune`` wrote; ``None`` without.
        table: The file of the calibration table; likewise.
        files: Size and hash of every file but the manifest and the signatures, by name.
        sha256: Of the bytes that it was read from; empty in one that was not read.
    """

    name: str
    version: int
    expires: datetime | None
    target: Target
    model: str
    preprocessing: Mapping[str, Any]
    golden: Golden
    limits: Limits
    head: str | None = None
    engines: Sequence[Engine] = ()
    classes: str | None = None
    profile: str | None = None
    table: str | None = None
    files: Mapping[str, FileEntry] = {}
    sha256: str = ""

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def id(self) -> str:
        """The name of the version's folder on the device."""
        return f"{self.name}-{self.version}-{self.sha256[:12]}"

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        document = {"schema": SCHEMA, **self._asdict()}
        del document["sha256"]
        return {
            **document,
            "expires": self.expires and self.expires.strftime(_TIME),
            "target": self.target._asdict(),
            "engines": [engine._asdict() for engine in self.engines],
            "golden": self.golden.to_json(),
            "limits": self.limits._asdict(),
            "files": {name: entry._asdict() for name, entry in self.files.items()},
        }

    def to_bytes(self) -> bytes:
        """Return the bytes to sign.

        Raises:
            ValueError: They could not be read.
        """
        text = json.dumps(self.to_json(), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
        data = f"{text}\n".encode()
        read_manifest(data)
        return data


def parse_manifest(data: bytes) -> Manifest:
    """Read a signed ``manifest.json``.

    Raises:
        RefusedError: It is not what this agent understands, to the last key.
    """
    try:
        return read_manifest(data)
    except ValueError as error:
        raise RefusedError(
            f"The manifest is signed, but not one that this agent understands: {error}; "
            "make the bundle again, or bring a newer agent."
        ) from error


def read_manifest(data: bytes) -> Manifest:
    """Read the bytes of a ``manifest.json``.

    Raises:
        ValueError: It says what it may not, lacks what it must say, or is larger than 256 KiB.
    """
    if len(data) > LIMITS[MANIFEST]:
        raise ValueError(f"it has {len(data):,} bytes, and devices read {LIMITS[MANIFEST]:,} at most")
    document = loads(data)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ValueError(f'it is not of schema "{SCHEMA}" but of {schema!r}')
    fields = Fields("", {"head": None, **document})
    fields.require_keys({"schema", *Manifest._fields} - {"sha256"})
    files = _files(fields.inner("files"))
    file = partial(fields.file, files=files)
    engines = fields.items("engines", MAX_FILES)
    return Manifest(
        name=fields.text("name", NAME),
        version=fields.whole("version", 1, MAX_VERSION),
        expires=_expires(fields),
        target=_target(fields.inner("target")),
        model=file("model"),
        preprocessing=_preprocessing(fields.inner("preprocessing")),
        golden=_golden(fields.inner("golden"), files),
        limits=_limits(fields.inner("limits")),
        head=fields.optional("head", partial(fields.text, pattern=_HEAD)),
        engines=tuple(_engine(Fields(f"engines[{index}].", engine), files) for index, engine in enumerate(engines)),
        classes=fields.optional("classes", file),
        profile=fields.optional("profile", file),
        table=fields.optional("table", file),
        files=files,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def require_file_names(names: Sequence[str]) -> None:
    """Raise ValueError where files of these names can't lie in one bundle, on any file system."""
    if len(names) > MAX_FILES:
        raise ValueError(f"a bundle holds {MAX_FILES} files at most, and these are {len(names)}")
    for name in names:
        parts = name.split("/")
        if len(name) > 255 or len(parts) > MAX_PARTS or not all(map(_PART.fullmatch, parts)):
            raise ValueError(f"a file of a bundle can't be called {name[:80]!r}")
    lowercase: dict[str, str] = {}
    for name in names:
        if name.lower() in lowercase:
            raise ValueError(f"the files {lowercase[name.lower()]!r} and {name!r} would be one on some file systems")
        lowercase[name.lower()] = name
    for name in lowercase:
        parents = name.split("/")[:-1]
        for count in range(1, len(parents) + 1):
            if "/".join(parents[:count]) in lowercase:
                raise ValueError(f"the bundle has a file and a folder called {'/'.join(parents[:count])!r}")


def _files(fields: Fields) -> dict[str, FileEntry]:
    if not isinstance(fields.values, dict):
        raise ValueError("files is not an object")
    if not fields.values:
        raise ValueError("it names no file")
    require_file_names([*fields.values, *LIMITS])
    files = {}
    for name in fields.values:
        entry = fields.inner(name)
        entry.require_keys(FileEntry._fields)
        files[name] = FileEntry(bytes=entry.whole("bytes", 0, 2**32 - 1), sha256=entry.text("sha256", _SHA256))
    if sum(entry.bytes for entry in files.values()) >= MAX_BYTES:
        raise ValueError("its files have more than the 4 GiB that a bundle holds")
    return files


def _expires(fields: Fields) -> datetime | None:
    if fields.values["expires"] is None:
        return None
    try:
        return datetime.strptime(fields.text("expires", _EXPIRES), _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        raise fields.wrong("expires", "is no time") from None


def _target(fields: Fields) -> Target:
    fields.require_keys(Target._fields)
    machines, runtimes = fields.texts("machines", _WORD), fields.inner("runtimes")
    if not machines:
        raise fields.wrong("machines", "names no machine")
    if not isinstance(runtimes.values, dict) or not runtimes.values or not set(runtimes.values) <= set(RUNTIMES):
        raise fields.wrong("runtimes", f"has to name some of {', '.join(RUNTIMES)}")
    return Target(
        machines=machines,
        runtimes={name: runtimes.texts(name, SPECIFIER) for name in runtimes.values},
        system=fields.text("system", _WORD),
    )


def _engine(fields: Fields, files: Collection[str]) -> Engine:
    fields.require_keys(Engine._fields)
    capabilities = fields.items("capabilities", 32)
    if not all(type(capability) is int and 10 <= capability <= 999 for capability in capabilities):
        raise fields.wrong("capabilities", "has to be a list of numbers such as 86")
    return Engine(
        file=fields.file("file", files),
        backend=fields.text("backend", re.compile("tensorrt|rtx")),
        version=fields.text("version", _DOTTED),
        capabilities=tuple(capabilities),
    )


def _golden(fields: Fields, files: Collection[str]) -> Golden:
    fields = Fields(fields.name, {"others": {}, **fields.values} if isinstance(fields.values, dict) else fields.values)
    fields.require_keys(Golden._fields)
    return Golden(
        input=fields.file("input", files),
        logits=fields.file("logits", files),
        min_sqnr_db=fields.number("min_sqnr_db", above=-1000.0),
        same_top1=fields.truth("same_top1"),
        others=_others(fields.inner("others"), files),
    )


def _others(fields: Fields, files: Collection[str]) -> dict[str, str]:
    names = fields.values
    if not isinstance(names, dict) or len(names) >= _MAX_OUTPUTS or max(map(len, names), default=0) > _MAX_OUTPUT_NAME:
        raise ValueError(f"{fields.name.rstrip('.')} is not an object of fewer than {_MAX_OUTPUTS} outputs")
    return {name: fields.file(name, files) for name in names}


def _limits(fields: Fields) -> Limits:
    fields.require_keys(Limits._fields)
    return Limits(
        latency_ms=fields.optional("latency_ms", partial(fields.number, above=0.0)),
        seconds=fields.whole("seconds", 1, 3600),
        memory_mib=fields.whole("memory_mib", 16, 2**20),
    )


def _preprocessing(fields: Fields) -> dict[str, Any]:
    fields.require_keys(_PREPROCESSING)
    fields.text("takes", re.compile("normalised|pixels|pictures"))
    size = fields.sides("size", 65_535)
    if fields.values["resize"] is not None:
        resize = fields.sides("resize", 65_535)
        # one number is that of the shorter side, which the longer side of the crop must not exceed
        least = size if isinstance(fields.values["resize"], list) else (max(size), max(size))
        if resize[0] < least[0] or resize[1] < least[1]:
            raise fields.wrong("resize", "is smaller than its size")
    channels = len(fields.items("mean", 4))
    if channels not in (1, 3, 4):
        raise fields.wrong("mean", "has to be a number for each of 1, 3 or 4 channels")
    fields.numbers("mean", channels, above=-math.inf)
    fields.numbers("std", channels, above=0.0)
    for key in ("crop", "interpolation", "color", "dtype"):
        fields.text(key, _WORD)
    fields.text("layout", re.compile("NCHW|NHWC"))
    fields.text("scale", re.compile("1/255"))
    fields.texts("in_graph", _WORD)
    return dict(fields.values)
