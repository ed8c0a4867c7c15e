"""A benchmark's JSON document, read back: what reports and comparisons are made of.

The schema is ``rexport.bench/1``. Keys may be missing, as in documents of earlier versions or of measurements that did
not ask for them; they read as null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from rexport._errors import InputError
from rexport.benchmarks.reports.fields import FieldError, Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Document",
    "Layer",
    "LayerProfile",
    "MachineFacts",
    "Peak",
    "ReportRow",
    "ServerSearch",
    "Trial",
    "load_document",
    "read_document",
    "short_names",
]

_KIND = "rexport.bench"
_SCHEMA = f"{_KIND}/1"
_KNOWN_FACTS = {
    "cpu", "architecture", "cores", "int8", "vnni", "memory_gib", "os", "python", "packages", "load_average",
    "cpu_quota",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What was measured on; ``other`` are facts that only some machines have, such as a GPU, in words."""

    cpu: str
    architecture: str | None = None
    cores: float | None = None
    int8: str | None = None
    memory_gib: float | None = None
    os: str | None = None
    python: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    load_average: float | None = None
    cpu_quota: float | None = None
    other: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether other programs took more than a quarter of the cores before the measurement."""
        return self.load_average is not None and bool(self.cores) and self.load_average > (self.cores or 0) / 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate that was tried: queries a second, how many, their latencies in ms, and whether the bound held."""

    rate_per_second: float | None
    queries: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    held: bool | None


@dataclass(frozen=True, kw_only=True)
class ServerSearch:
    """The highest rate whose ``percentile`` of latency is within ``latency_bound_ms``; ``None`` where none was."""

    rate_per_second: float | None
    latency_bound_ms: float | None
    percentile: float | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """A row of the document; its attributes are the document's keys.

    ``rounds`` holds ``seconds`` split by ``calls_per_round``, and ``launches`` is how many of the rounds each process
    ran; ``phases_ms`` are upload, compute and download.
    """

    model: str
    runtime: str
    batch: int
    threads: int
    scenario: str
    status: str
    reason: str | None
    images_per_second: float | None
    images_per_second_interval: tuple[float, float] | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    speedup: float | None
    speedup_interval: tuple[float, float] | None
    peak_memory_mib: float | None
    load_seconds: float | None
    first_call_seconds: float | None
    agreement: float | None
    sqnr_db: float | None
    wrong: bool
    top1: float | None
    share_of_peak: float | None
    gmacs_per_second: float | None
    flags: tuple[str, ...]
    affinity: tuple[int, ...]
    phases_ms: tuple[float | None, float | None, float | None] | None
    server: ServerSearch | None
    rounds: tuple[tuple[float, ...], ...]
    launches: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds of every timed call, in order."""
        return tuple(second for block in self.rounds for second in block)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's part of a call: multiply-adds, seconds, and the share of the whole, 0…1."""

    name: str
    op_type: str | None
    precision: str | None
    macs: float | None
    seconds: float | None
    share: float
    advice: str | None

    @property
    def gmacs_per_second(self) -> float | None:
        """Multiply-adds a second, in units of 10⁹."""
        return self.macs / self.seconds / 1e9 if self.macs and self.seconds else None


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """The layers of a model on a runtime at a batch size."""

    model: str
    runtime: str
    batch: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that the machine reached through a runtime: ``kind`` is a convolution or a matrix product."""

    runtime: str
    precision: str
    kind: str
    gmacs_per_second: float


@dataclass(frozen=True, kw_only=True)
class Document:
    """A benchmark's result; ``command`` and ``created`` are there if the document says them."""

    machine: MachineFacts
    rows: tuple[ReportRow, ...]
    layers: tuple[LayerProfile, ...] = ()
    peaks: tuple[Peak, ...] = ()
    command: str | None = None
    created: str | None = None

    @property
    def measured(self) -> tuple[ReportRow, ...]:
        """The rows that were measured."""
        return tuple(row for row in self.rows if row.ok)


def load_document(path: Path) -> dict[str, Any]:
    """Read the JSON document in a file, and check that it is one.

    Raises:
        InputError: It can't be read, or is not a benchmark's document.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); `rexport bench MODEL -o {path.name}` writes one.") from error
    read_document(document, str(path))
    return dict(document)


def read_document(document: Mapping[str, Any], where: str = "the document") -> Document:
    """Read a document of schema ``rexport.bench/1``; ``where`` it is from is for the error.

    Raises:
        InputError: It is of another schema, or a key holds something else than it should.
    """
    try:
        fields = Fields(document, "")
        _check_schema(fields.scalar("schema"), where)
        return Document(
            machine=_machine(fields.inner("machine")),
            rows=tuple(_row(row) for row in fields.objects("rows")),
            layers=tuple(_profile(profile) for profile in fields.objects("layers")),
            peaks=tuple(_peak(peak) for peak in fields.objects("peaks")),
            command=fields.text("command"),
            created=fields.text("created"),
        )
    except FieldError as error:
        raise InputError(f"{where} is not a whole benchmark: {error}; measure again with `rexport bench`.") from error


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


def _check_schema(schema: str | None, where: str) -> None:
    if schema == _SCHEMA:
        return
    if schema is not None and schema.rpartition("/")[0] == _KIND:
        raise InputError(f"{where} is of another version, {schema}, and this one reads {_SCHEMA}; measure again.")
    what = "says no schema" if schema is None else f"is a {schema} document"
    raise InputError(f"{where} {what}; a benchmark's is {_SCHEMA}, which `rexport bench MODEL -o FILE` writes.")


def _machine(fields: Fields | None) -> MachineFacts:
    if fields is None:
        raise FieldError("machine is null, not an object")
    packages = fields.inner("packages")
    versions = {} if packages is None else {name: packages.text(name) for name in packages.names()}
    others = {name: fields.scalar(name) for name in fields.names() if name not in _KNOWN_FACTS}
    return MachineFacts(
        cpu=fields.name("cpu"),
        architecture=fields.text("architecture"),
        cores=fields.number("cores"),
        int8=fields.text("int8"),
        memory_gib=fields.number("memory_gib"),
        os=fields.text("os"),
        python=fields.text("python"),
        packages={name: version for name, version in versions.items() if version is not None},
        load_average=fields.number("load_average"),
        cpu_quota=fields.number("cpu_quota"),
        other={name: value for name, value in others.items() if value is not None},
    )


def _row(fields: Fields) -> ReportRow:
    latency = fields.inner("latency_ms") or Fields({}, "")
    rounds = _rounds(fields.numbers("seconds"), fields.counts("calls_per_round"))
    row = ReportRow(
        model=fields.name("model"),
        runtime=fields.name("runtime"),
        batch=fields.count("batch"),
        threads=fields.count("threads"),
        scenario=fields.text("scenario") or "single-stream",
        status=fields.name("status"),
        reason=fields.text("reason"),
        images_per_second=fields.number("images_per_second"),
        images_per_second_interval=fields.interval("images_per_second_interval"),
        p50_ms=latency.number("p50"),
        p90_ms=latency.number("p90"),
        p99_ms=latency.number("p99"),
        speedup=fields.number("speedup"),
        speedup_interval=fields.interval("speedup_interval"),
        peak_memory_mib=fields.number("peak_memory_mib"),
        load_seconds=fields.number("load_seconds"),
        first_call_seconds=fields.number("first_call_seconds"),
        agreement=fields.number("agreement"),
        sqnr_db=fields.number("sqnr_db"),
        wrong=bool(fields.flag("wrong")),
        top1=fields.number("top1"),
        share_of_peak=fields.number("share_of_peak"),
        gmacs_per_second=fields.number("gmacs_per_second"),
        flags=fields.texts("flags"),
        affinity=fields.counts("affinity"),
        phases_ms=_phases(fields.inner("phases_ms")),
        server=_server(fields.inner("server")),
        rounds=rounds,
        launches=_launches(fields.counts("rounds_per_launch"), rounds),
    )
    if any(second <= 0 for second in row.seconds):
        raise FieldError(f"{row.model} on {row.runtime} has calls of no or negative time")
    return row


def _phases(fields: Fields | None) -> tuple[float | None, float | None, float | None] | None:
    return None if fields is None else (fields.number("upload"), fields.number("compute"), fields.number("download"))


def _rounds(seconds: tuple[float, ...], calls: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    if sum(calls) != len(seconds):
        if calls:
            raise FieldError(f"calls_per_round adds up to {sum(calls)}, and there are {len(seconds)} seconds")
        return (seconds,) if seconds else ()
    starts = [sum(calls[:i]) for i in range(len(calls))]
    return tuple(seconds[start : start + count] for start, count in zip(starts, calls, strict=True) if count)


def _launches(counts: tuple[int, ...], rounds: tuple[tuple[float, ...], ...]) -> tuple[int, ...]:
    if not counts:
        return (len(rounds),)
    if sum(counts) != len(rounds):
        raise FieldError(f"rounds_per_launch adds up to {sum(counts)}, and there are {len(rounds)} rounds")
    return counts


def _server(fields: Fields | None) -> ServerSearch | None:
    if fields is None:
        return None
    return ServerSearch(
        rate_per_second=fields.number("rate_per_second"),
        latency_bound_ms=fields.number("latency_bound_ms"),
        percentile=fields.number("percentile"),
        trials=tuple(
            Trial(
                rate_per_second=trial.number("rate_per_second"),
                queries=trial.number("queries"),
                p50_ms=trial.number("p50_ms"),
                p90_ms=trial.number("p90_ms"),
                p99_ms=trial.number("p99_ms"),
                held=trial.flag("held"),
            )
            for trial in fields.objects("trials")
        ),
    )


def _profile(fields: Fields) -> LayerProfile:
    return LayerProfile(
        model=fields.name("model"),
        runtime=fields.name("runtime"),
        batch=fields.count("batch"),
        layers=tuple(
            Layer(
                name=layer.name("name"),
                op_type=layer.text("op_type"),
                precision=layer.text("precision"),
                macs=layer.number("macs"),
                seconds=layer.number("seconds"),
                share=layer.number("share") or 0.0,
                advice=layer.text("advice"),
            )
            for layer in fields.objects("layers")
        ),
    )


def _peak(fields: Fields) -> Peak:
    return Peak(
        runtime=fields.name("runtime"),
        precision=fields.name("precision"),
        kind=fields.name("kind"),
        gmacs_per_second=fields.number("gmacs_per_second") or 0.0,
    )
