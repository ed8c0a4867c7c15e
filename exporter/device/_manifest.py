"""The manifest, read strictly: every key is there and none besides, and every value is what it may be.

It is read only after its signature was found good, and from the very bytes that were signed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple

from ._container import LIMITS
from ._errors import RefusedError

__all__ = ["Engine", "FileEntry", "Golden", "Limits", "Manifest", "Target", "parse_manifest"]

SCHEMA = "rexport.bundle/1"
RUNTIMES = ("tensorrt", "rtx", "onnxruntime")  # tried in this order
MAX_FILES, MAX_PARTS, MAX_BYTES = 64, 4, (4 << 30) - (1 << 20)  # all offsets in an .rxb have 32 bits

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPEC = re.compile(r"(>=|<|==)\d{1,9}(\.\d{1,9}){0,4}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_HEADS = ("logits", "softmax", "log-softmax")
_KEYS = [
    "schema",
    "name",
    "version",
    "expires",
    "target",
    "model",
    "head",
    "engines",
    "classes",
    "preprocessing",
    "golden",
    "limits",
    "profile",
    "table",
    "files",
]


class FileEntry(NamedTuple):
    """What the manifest says of a file: its size in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


class Target(NamedTuple):
    """What a bundle is for: ``platform``'s names, and by runtime the specs that its version must all meet."""

    system: str
    machines: list[str]
    runtimes: dict[str, list[str]]


class Engine(NamedTuple):
    """An engine file, and exactly what it was built for; capabilities are compute capabilities times ten."""

    file: str
    backend: str
    version: str
    capabilities: list[int]


class Golden(NamedTuple):
    """An input, the logits that belong to it, and how near to them the device must come."""

    input: str
    logits: str
    min_sqnr_db: float
    same_top1: bool


class Limits(NamedTuple):
    """What the self-check may take; ``latency_ms`` bounds the median call on the golden input."""

    latency_ms: float | None
    seconds: int
    memory_mib: int


class Manifest(NamedTuple):
    """A bundle's manifest; see the field's names in the file itself.

    ``head`` is what the model gives, ``None`` in bundles that were made before manifests said it.
    """

    name: str
    version: int
    expires: datetime | None
    target: Target
    model: str
    head: str | None
    engines: list[Engine]
    classes: str | None
    preprocessing: dict[str, Any] | None
    golden: Golden
    limits: Limits
    files: dict[str, FileEntry]
    sha256: str

    @property
    def id(self) -> str:
        """The name of the version's folder on the device."""
        return f"{self.name}-{self.version}-{self.sha256[:12]}"


def parse_manifest(data: bytes) -> Manifest:
    """Read the bytes of a ``manifest.json``.

    Raises:
        RefusedError: It is not what this agent understands, to the last key.
    """
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        return _manifest(document, hashlib.sha256(data).hexdigest())
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            f"The manifest is signed, but not one that this agent understands: {error}; "
            "make the bundle again, or bring a newer agent."
        ) from error


def _manifest(document: Any, sha256: str) -> Manifest:
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {document.get('schema')!r} instead of {SCHEMA!r}")
    fields = _object({"head": None, **_mapping(document, "the manifest")}, "the manifest", _KEYS)
    files = {_file_name(name): _entry(entry, name) for name, entry in _mapping(fields["files"], "files").items()}
    if not 1 <= len(files) <= MAX_FILES or len({name.lower() for name in files}) != len(files):
        raise ValueError(f"it must name 1 to {MAX_FILES} files, also apart where case does not count")
    _no_file_in_a_file(files)
    if sum(entry.bytes for entry in files.values()) >= MAX_BYTES:
        raise ValueError("its files come to 4 GiB")
    known = _one_of(files)
    return Manifest(
        name=_text(fields["name"], "name", _NAME),
        version=_integer(fields["version"], "version", 1, 2**31 - 1),
        expires=_optional(fields["expires"], _time),
        target=_target(fields["target"]),
        model=known(fields["model"]),
        head=_optional(fields["head"], _head),
        engines=[_engine(each, known) for each in _list(fields["engines"], "engines")],
        classes=_optional(fields["classes"], known),
        preprocessing=_optional(fields["preprocessing"], lambda value: _mapping(value, "preprocessing")),
        golden=_golden(fields["golden"], known),
        limits=_limits(fields["limits"]),
        files=_with_checked_extras(files, fields, known),
        sha256=sha256,
    )


def _with_checked_extras(
    files: dict[str, FileEntry], fields: dict[str, Any], known: Callable[[Any], str]
) -> dict[str, FileEntry]:
    for key in ("profile", "table"):  # they travel along, for people and for `rexport inspect`
        _optional(fields[key], known)
    return files


def _head(value: Any) -> str:
    if value not in _HEADS:
        raise ValueError(f"head must be one of {', '.join(_HEADS)}")
    return str(value)


def _target(value: Any) -> Target:
    fields = _object(value, "target", ["system", "machines", "runtimes"])
    runtimes = _mapping(fields["runtimes"], "runtimes")
    if not runtimes or not set(runtimes) <= set(RUNTIMES):
        raise ValueError(f"runtimes must be some of {', '.join(RUNTIMES)}")
    return Target(
        system=_text(fields["system"], "system"),
        machines=[_text(each, "machines") for each in _list(fields["machines"], "machines")],
        runtimes={
            name: [_text(spec, "a runtime's version", _SPEC) for spec in _list(specs, name)]
            for name, specs in runtimes.items()
        },
    )


def _engine(value: Any, known: Callable[[Any], str]) -> Engine:
    fields = _object(value, "an engine", ["file", "backend", "version", "capabilities"])
    if fields["backend"] not in ("tensorrt", "rtx"):
        raise ValueError("an engine's backend must be tensorrt or rtx")
    return Engine(
        file=known(fields["file"]),
        backend=fields["backend"],
        version=_text(fields["version"], "an engine's version"),
        capabilities=[_integer(each, "a capability", 10, 9999) for each in _list(fields["capabilities"], "an engine")],
    )


def _golden(value: Any, known: Callable[[Any], str]) -> Golden:
    fields = _object(value, "golden", ["input", "logits", "min_sqnr_db", "same_top1"])
    if not isinstance(fields["same_top1"], bool):
        raise ValueError("golden.same_top1 must be true or false")
    return Golden(
        input=known(fields["input"]),
        logits=known(fields["logits"]),
        min_sqnr_db=_number(fields["min_sqnr_db"], "golden.min_sqnr_db", -1000.0),
        same_top1=fields["same_top1"],
    )


def _limits(value: Any) -> Limits:
    fields = _object(value, "limits", ["latency_ms", "seconds", "memory_mib"])
    return Limits(
        latency_ms=_optional(fields["latency_ms"], lambda bound: _number(bound, "limits.latency_ms", 0.0)),
        seconds=_integer(fields["seconds"], "limits.seconds", 1, 3600),
        memory_mib=_integer(fields["memory_mib"], "limits.memory_mib", 16, 1 << 20),
    )


def _entry(value: Any, name: str) -> FileEntry:
    fields = _object(value, name, ["bytes", "sha256"])
    return FileEntry(_integer(fields["bytes"], name, 0, MAX_BYTES - 1), _text(fields["sha256"], name, _SHA256))


def _file_name(name: str) -> str:
    parts = name.split("/")
    if len(name) > 255 or len(parts) > MAX_PARTS or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"a file may not be called {name[:80]!r}")
    if name.lower() in LIMITS:
        raise ValueError(f"{name} can't be among its files")
    return name


def _no_file_in_a_file(files: dict[str, FileEntry]) -> None:
    folders = {"/".join(name.lower().split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)}
    if folders & {name.lower() for name in files} or folders & set(LIMITS):
        raise ValueError("one of its files stands where another needs a folder")


def _one_of(files: dict[str, FileEntry]) -> Callable[[Any], str]:
    def known(value: Any) -> str:
        if not isinstance(value, str) or value not in files:
            raise ValueError(f"it names {value!r}, which is not among its files")
        return value

    return known


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _object(value: Any, what: str, keys: list[str]) -> dict[str, Any]:
    found = _mapping(value, what)
    for key in sorted(set(found) ^ set(keys)):
        raise ValueError(f"{what} {'has an unknown' if key in found else 'lacks the'} key {key!r}")
    return found


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_FILES:
        raise ValueError(f"{what} must be a list of at most {MAX_FILES}")
    return value


def _text(value: Any, what: str, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not value or (pattern is not None and not pattern.fullmatch(value)):
        raise ValueError(f"{what} can't be {value!r}")
    return value


def _integer(value: Any, what: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{what} must be a whole number from {low} to {high}, not {value!r}")
    return value


def _number(value: Any, what: str, low: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low < value < math.inf:
        raise ValueError(f"{what} must be a number above {low:g}, not {value!r}")
    return float(value)


def _time(value: Any) -> datetime:
    text = _text(value, "expires", _TIME)
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def _optional(value: Any, read: Callable[[Any], Any]) -> Any:
    return None if value is None else read(value)
