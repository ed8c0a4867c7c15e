"""A benchmark's JSON document, read back: what reports and comparisons are made of.

The schema is ``rexport.bench/1``. Keys may be missing, as in documents of earlier versions or of measurements that did
not ask for them; they read as null.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from rexport._documents import Count, Finite, Positive, as_record, load_json
from rexport._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Document",
    "Latency",
    "Layer",
    "LayerProfile",
    "MachineFacts",
    "Peak",
    "Phases",
    "ReportRow",
    "ServerSearch",
    "Trial",
    "load_document",
    "read_document",
    "short_names",
]

_KIND = "rexport.bench"
_SCHEMA = f"{_KIND}/1"
_Natural = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What was measured on; ``other`` are facts that only some machines have, such as a GPU, in words."""

    cpu: str
    architecture: str | None = None
    cores: Finite | None = None
    int8: str | None = None
    memory_gib: Finite | None = None
    os: str | None = None
    python: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    load_average: Finite | None = None
    cpu_quota: Finite | None = None
    other: dict[str, str] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether other programs took more than a quarter of the cores before the measurement."""
        return self.load_average is not None and bool(self.cores) and self.load_average > (self.cores or 0) / 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate that was tried: queries a second, how many, their latencies in ms, and whether the bound held."""

    rate_per_second: Finite | None = None
    queries: Finite | None = None
    p50_ms: Finite | None = None
    p90_ms: Finite | None = None
    p99_ms: Finite | None = None
    held: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ServerSearch:
    """The highest rate whose ``percentile`` of latency is within ``latency_bound_ms``; ``None`` where none was."""

    rate_per_second: Finite | None = None
    latency_bound_ms: Finite | None = None
    percentile: Finite | None = None
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of a call, in milliseconds."""

    p50: Finite | None = None
    p90: Finite | None = None
    p99: Finite | None = None


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The parts of a call on a device, in milliseconds."""

    upload: Finite | None = None
    compute: Finite | None = None
    download: Finite | None = None


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """A row of the document; its attributes are the document's keys."""

    model: str
    runtime: str
    batch: Count
    threads: Count
    status: str
    scenario: str = "single-stream"
    reason: str | None = None
    images_per_second: Finite | None = None
    images_per_second_interval: tuple[Finite, Finite] | None = None
    latency_ms: Latency = field(default_factory=Latency)
    speedup: Finite | None = None
    speedup_interval: tuple[Finite, Finite] | None = None
    peak_memory_mib: Finite | None = None
    load_seconds: Finite | None = None
    first_call_seconds: Finite | None = None
    agreement: Finite | None = None
    sqnr_db: Finite | None = None
    wrong: bool = False
    top1: Finite | None = None
    share_of_peak: Finite | None = None
    gmacs_per_second: Finite | None = None
    flags: tuple[str, ...] = ()
    affinity: tuple[_Natural, ...] = ()
    phases_ms: Phases | None = None
    server: ServerSearch | None = None
    seconds: tuple[Positive, ...] = ()
    calls_per_round: tuple[_Natural, ...] = ()
    rounds_per_launch: tuple[_Natural, ...] = ()

    def __post_init__(self) -> None:
        for interval in (self.images_per_second_interval, self.speedup_interval):
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(f"The interval {list(interval)} is not a low and a high end")
        if self.calls_per_round and sum(self.calls_per_round) != len(self.seconds):
            raise ValueError(
                f"calls_per_round adds up to {sum(self.calls_per_round)}, and there are {len(self.seconds)} seconds"
            )
        if self.rounds_per_launch and sum(self.rounds_per_launch) != len(self.rounds):
            raise ValueError(
                f"rounds_per_launch adds up to {sum(self.rounds_per_launch)}, and there are {len(self.rounds)} rounds"
            )

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    @cached_property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The seconds of each round that has some, in order; all are of one where the document doesn't say."""
        seconds = iter(self.seconds)
        counts = self.calls_per_round or (len(self.seconds),)
        return tuple(tuple(islice(seconds, count)) for count in counts if count)

    @property
    def launches(self) -> tuple[int, ...]:
        """How many of the rounds each process ran."""
        return self.rounds_per_launch or (len(self.rounds),)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's part of a call: multiply-adds, seconds, and the share of the whole, 0…1."""

    name: str
    op_type: str | None = None
    precision: str | None = None
    macs: Finite | None = None
    seconds: Finite | None = None
    share: Finite = 0.0
    advice: str | None = None

    @property
    def gmacs_per_second(self) -> float | None:
        """Multiply-adds a second, in units of 10⁹."""
        return self.macs / self.seconds / 1e9 if self.macs and self.seconds else None


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """The layers of a model on a runtime at a batch size."""

    model: str
    runtime: str
    batch: Count
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that the machine reached through a runtime: ``kind`` is a convolution or a matrix product."""

    runtime: str
    precision: str
    kind: str
    gmacs_per_second: Finite = 0.0


@dataclass(frozen=True, kw_only=True)
class Document:
    """A benchmark's result; ``command`` and ``created`` are there if the document says them."""

    machine: MachineFacts
    rows: tuple[ReportRow, ...] = ()
    layers: tuple[LayerProfile, ...] = ()
    peaks: tuple[Peak, ...] = ()
    command: str | None = None
    created: str | None = None

    @property
    def file_names(self) -> dict[str, str]:
        """What the rows' models are called, by :func:`short_names`."""
        return short_names(dict.fromkeys(row.model for row in self.rows))

    @property
    def measured(self) -> tuple[ReportRow, ...]:
        """The rows that were measured."""
        return tuple(row for row in self.rows if row.ok)


def load_document(path: Path) -> dict[str, Any]:
    """Read the JSON document in a file, and check that it is one.

    Raises:
        InputError: It can't be read, or is not a benchmark's document.
    """
    values = load_json(path)
    read_document(values, str(path))
    return dict(values)


def read_document(document: Mapping[str, Any], where: str = "the document") -> Document:
    """Read a document of schema ``rexport.bench/1``; ``where`` it is from is for the error.

    Raises:
        InputError: It is of another schema, or a key holds something else than it should.
    """
    if isinstance(document, dict):
        _check_schema(document.get("schema"), where)
    record = as_record(_stated(document), Document, where=where, advice="measure again with `rexport bench`")
    return replace(record, machine=replace(record.machine, other=_other_facts(document["machine"])))


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Return the file name of each model, or all of its path where two files have the same name.

    Example:
        >>> short_names(["a/net.onnx", "b/net.onnx", "c/other.onnx", "resnet50"])
        {'a/net.onnx': 'a/net.onnx', 'b/net.onnx': 'b/net.onnx', 'c/other.onnx': 'other.onnx', 'resnet50': 'resnet50'}
    """
    names = {model: _file_name(model) for model in models}
    taken = list(names.values())
    return {model: name if taken.count(name) == 1 else model for model, name in names.items()}


def _file_name(model: str) -> str:
    flavour = PureWindowsPath if "\\" in model else PurePosixPath
    return flavour(model).name or model


def _check_schema(schema: object, where: str) -> None:
    if schema == _SCHEMA:
        return
    if str(schema).startswith(f"{_KIND}/"):
        raise InputError(f"{where} is of another version, {schema}, and this one reads {_SCHEMA}; measure again.")
    kind = "says no schema" if schema is None else f"is a {schema} document"
    raise InputError(f"{where} {kind}; a benchmark's is {_SCHEMA}, which `rexport bench MODEL -o FILE` writes.")


def _stated(value: Any) -> Any:
    """Return a document without the keys that are null, which say no more than those that are missing."""
    if isinstance(value, dict):
        return {key: _stated(inner) for key, inner in value.items() if inner is not None}
    return [_stated(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _other_facts(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return in words the facts that are no attributes."""
    known = {"vnni", *(attribute.name for attribute in fields(MachineFacts))}  # int8 says it too
    words = {True: "yes", False: "no"}
    return {
        name: words[value] if isinstance(value, bool) else str(value)
        for name, value in machine.items()
        if name not in known and isinstance(value, (str, int, float))
    }
