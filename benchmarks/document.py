"""A benchmark's result: the record that measuring fills in, its JSON document, and what reads that back.

The document's schema is ``rexport.bench/1``, and its keys are the fields of these records. When a document is read,
keys may be missing, as in those of earlier versions; a missing key and null both mean the field's default.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from rexport._documents import Count, Finite, Natural, Positive, as_record, load_json
from rexport._errors import InputError
from rexport.benchmarks.machine import Machine  # noqa: TC001 - msgspec reads the fields' types
from rexport.benchmarks.profiling.profiled import LayerProfile  # noqa: TC001
from rexport.benchmarks.scenarios.scenario import Scenario  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "SCHEMA",
    "BenchResult",
    "Kind",
    "Latency",
    "LoadgenResult",
    "Peak",
    "PeakPrecision",
    "Row",
    "Sample",
    "ServerSearch",
    "Status",
    "Trial",
    "load_document",
    "now",
    "read_document",
    "short_names",
]

_KIND = "rexport.bench"
SCHEMA = f"{_KIND}/1"


class Status(StrEnum):
    """What became of a row."""

    OK = "ok"
    UNAVAILABLE = "unavailable"  # this runtime can't run this model, or not here
    FAILED = "failed"  # it should have run


class Kind(StrEnum):
    """What a peak's load multiplies."""

    CONVOLUTION = "convolution"
    MATRIX_PRODUCT = "matrix product"


class PeakPrecision(StrEnum):
    """The numbers that a peak's load multiplies."""

    INT8 = "int8"
    FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of a call, in milliseconds; ``None`` where there are too few calls for one."""

    p50: Finite | None = None
    p90: Finite | None = None
    p99: Finite | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A rate that was tried.

    Attributes:
        rate_per_second: The rate of the Poisson process, in queries of one image.
        queries: How many were answered.
        p50_ms: Percentiles of the latency, counted from the scheduled arrival.
        p90_ms: Likewise; ``None`` from fewer than 64 queries.
        p99_ms: Likewise; ``None`` from fewer than 662.
        held: Whether the percentile was within the bound.
        purpose: ``bracket``, ``bisect`` or ``confirm``.
        stopped: Whether it ended as soon as it could not hold any more. There are no percentiles then.
        mean_batch: Images per call of the model.
        seconds: From the start of the schedule to the last answer.
    """

    rate_per_second: Finite
    queries: Natural
    p50_ms: Finite | None = None
    p90_ms: Finite | None = None
    p99_ms: Finite | None = None
    held: bool
    purpose: str = ""
    stopped: bool = False
    mean_batch: Finite | None = None
    seconds: Finite | None = None


@dataclass(frozen=True, kw_only=True)
class ServerSearch:
    """The search for the highest rate of queries whose latency stays within a bound.

    Attributes:
        rate_per_second: The highest rate that held, and held once more; ``None`` if none did.
        latency_bound_ms: The bound for the latency of ``percentile`` per cent of the queries.
        percentile: 99; or 90, where 662 queries would have taken too long.
        reason: Why there is no rate, in a sentence.
        one_image_ms: The median time of one image alone: no latency is below it.
        capacity_per_second: Images per second in calls of one image or of the largest batch, whichever is more.
        trials: All rates tried, in order.
    """

    rate_per_second: Finite | None = None
    latency_bound_ms: Finite | None = None
    percentile: Natural | None = None
    reason: str | None = None
    one_image_ms: Finite | None = None
    capacity_per_second: Finite | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def confirmed(self) -> Trial | None:
        """The trial that the rate rests on."""
        return None if self.rate_per_second is None else self.trials[-1]


@dataclass(frozen=True, kw_only=True)
class LoadgenResult:
    """LoadGen's verdict.

    Attributes:
        scenario: Which it ran.
        valid: Whether it says VALID.
        reasons: Why not, in its words as far as it has any; empty if it is.
        samples_per_second: Its throughput: completed, with its own overhead.
        latency_ms: As it reports them; ``None`` from too few queries, and offline, where all samples are one query.
        queries: How many it issued; an offline run is one.
        min_seconds: The least duration it was asked for.
        target_per_second: The rate it was told to issue (server), or to expect (offline).
        latency_bound_ms: Of the server scenario.
        percentile: That the scenario is judged at; ``None`` offline.
        early_stopping: What it says about whether there were enough queries.
        version: Of LoadGen.
        note: What the verdict is worth.
    """

    scenario: Scenario
    valid: bool
    reasons: tuple[str, ...] = ()
    samples_per_second: Finite | None = None
    latency_ms: Latency = field(default_factory=Latency)
    queries: Natural
    min_seconds: Finite
    target_per_second: Finite | None = None
    latency_bound_ms: Finite | None = None
    percentile: Natural | None = None
    early_stopping: str
    version: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model on a runtime at a batch size; what was not measured is ``None`` or empty.

    Attributes:
        model: As it was named: a file or a network.
        runtime: Its name in :data:`rexport.runtimes.RUNTIMES`.
        batch: Images per call.
        threads: Threads the runtime was given.
        status: Whether it was measured, and otherwise
        reason: why not, in a sentence.
        images_per_second: At the median call; offline the mean, and in the server scenario the rate that held.
        images_per_second_interval: Its interval at 95 %.
        latency_ms: Of a call.
        speedup: How many times as fast as the first measured row of this batch size.
        speedup_interval: Its interval at 95 %.
        peak_memory_mib: The most its process held, model and runtime and interpreter, in MiB.
        load_seconds: How long loading the model took, without importing the runtime; the median over launches.
        first_call_seconds: Likewise, the first call.
        warm_up_calls: Calls until it was warm.
        affinity: The numbers of the cores it ran on; ``None`` where the system does not tell.
        phases_ms: Of a device: ``upload``, ``compute`` and ``download`` of a call, medians in milliseconds.
        agreement: The share of pictures whose top-1 is that of the first row that could be compared.
        sqnr_db: Of its outputs against that row's, in decibels; ``None`` for equal outputs too.
        wrong: Whether its outputs are not that row's, beyond what its precision explains (see ``outputs``).
        top1: Its accuracy on labelled pictures, a fraction.
        flags: What should make a reader careful, in sentences.
        seconds: Of every timed call, in order.
        calls_per_round: How many of the seconds each round has; all are of one if empty.
        rounds_per_launch: How many of the rounds each launch of its process has; all are of one if empty.
        scenario: How queries came; ``None`` if models took turns.
        server: The search for the highest rate, of the server scenario.
        loadgen: LoadGen's verdict on the scenario.
        macs: Multiply-accumulates per image.
        gmacs_per_second: 10⁹ multiply-accumulates per second.
        share_of_peak: Of the machine's peak.
    """

    model: str
    runtime: str
    batch: Count
    threads: Count
    status: Status = Status.OK
    reason: str | None = None
    images_per_second: Finite | None = None
    images_per_second_interval: tuple[Finite, Finite] | None = None
    latency_ms: Latency = field(default_factory=Latency)
    speedup: Finite | None = None
    speedup_interval: tuple[Finite, Finite] | None = None
    peak_memory_mib: Finite | None = None
    load_seconds: Finite | None = None
    first_call_seconds: Finite | None = None
    warm_up_calls: Natural | None = None
    affinity: tuple[Natural, ...] | None = None
    phases_ms: dict[str, Finite] | None = None
    agreement: Finite | None = None
    sqnr_db: Finite | None = None
    wrong: bool | None = None
    top1: Finite | None = None
    flags: tuple[str, ...] = ()
    seconds: tuple[Positive, ...] = ()
    calls_per_round: tuple[Natural, ...] = ()
    rounds_per_launch: tuple[Natural, ...] = ()
    scenario: Scenario | None = None
    server: ServerSearch | None = None
    loadgen: LoadgenResult | None = None
    macs: Finite | None = None
    gmacs_per_second: Finite | None = None
    share_of_peak: Finite | None = None

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
        return self.status is Status.OK

    @cached_property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The seconds of each round that has some, in order."""
        seconds = iter(self.seconds)
        counts = self.calls_per_round or (len(self.seconds),)
        return tuple(tuple(islice(seconds, count)) for count in counts if count)

    @property
    def launches(self) -> tuple[int, ...]:
        """How many of the rounds each launch has."""
        return self.rounds_per_launch or (len(self.rounds),)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that a runtime reaches on this machine.

    Attributes:
        runtime: ``cpu`` or ``openvino``.
        precision: Of what is multiplied.
        kind: What is multiplied.
        threads: That the runtime was given.
        gmacs_per_second: 10⁹ multiply-accumulates per second.
        load: What reached it, in words.
        steady: Whether the calls took about the same time; if not, the machine can do more, and it is not remembered.
        at_least: Whether a model was faster, so that this is what the model reached and the peak is unknown.
        remembered: Whether it is from an earlier run.
    """

    runtime: str
    precision: PeakPrecision
    kind: Kind
    threads: Natural = 0
    gmacs_per_second: Positive
    load: str = ""
    steady: bool = True
    at_least: bool = False
    remembered: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the peak as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The pictures that were ``used``, evenly spread, of a ``total``."""

    used: Natural
    total: Natural


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All rows of a benchmark, the machine they were measured on, and what else was found out about both.

    Attributes:
        machine: What was measured on.
        rows: In the order of the table.
        peaks: The most that the machine reaches.
        layers: The profiles of the files' layers.
        command: What was typed.
        time: When measuring began, in UTC: ``2026-11-30T19:05:14Z``; ``None`` in older documents.
        drawn_pictures: Whether outputs were compared on drawn pictures, and not on those of a folder.
        pictures: The pictures of the folder that outputs and top-1 are of; ``None`` without a folder.
    """

    machine: Machine
    rows: tuple[Row, ...] = ()
    peaks: tuple[Peak, ...] = ()
    layers: tuple[LayerProfile, ...] = ()
    command: str | None = None
    time: str | None = None
    drawn_pictures: bool = False
    pictures: Sample | None = None

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that were measured."""
        return tuple(row for row in self.rows if row.ok)

    @property
    def file_names(self) -> dict[str, str]:
        """The short name of each row's model, by :func:`short_names`."""
        return short_names(dict.fromkeys(row.model for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Return the document of schema ``rexport.bench/1``, without the parts that it does not have."""
        parts = {
            "peaks": [peak.to_json() for peak in self.peaks],
            "layers": [asdict(profile) for profile in self.layers],
            "command": self.command,
            "time": self.time,
            "drawn_pictures": self.drawn_pictures,
            "pictures": None if self.pictures is None else asdict(self.pictures),
        }
        return {
            "schema": SCHEMA,
            "machine": self.machine.to_json(),
            "rows": [row.to_json() for row in self.rows],
            **{key: part for key, part in parts.items() if part},
        }


def now() -> str:
    """Return the time as a document has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def load_document(path: Path) -> BenchResult:
    """Read the JSON document in a file.

    Raises:
        InputError: It can't be read, or is not a benchmark's document.
    """
    return read_document(load_json(path), str(path))


def read_document(document: Mapping[str, Any] | BenchResult, where: str = "the document") -> BenchResult:
    """Return the record of a document; a record is returned as it is.

    Args:
        document: Of schema ``rexport.bench/1``.
        where: Where it is from, for errors.

    Raises:
        InputError: It is of another schema, or a key holds something else than it should.
    """
    if isinstance(document, BenchResult):
        return document
    if isinstance(document, dict):
        _check_schema(document.get("schema"), where)
    record = as_record(_stated(document), BenchResult, where=where, advice="measure again with `rexport bench`")
    return replace(record, machine=record.machine.with_others(document["machine"]))


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Return the file name of each model, or all of its path where two files have the same name.

    Example:
        >>> short_names(["a/net.onnx", "b/net.onnx", "c/other.onnx", "resnet50"])
        {'a/net.onnx': 'a/net.onnx', 'b/net.onnx': 'b/net.onnx', 'c/other.onnx': 'other.onnx', 'resnet50': 'resnet50'}
    """
    names = {model: model.replace("\\", "/").rpartition("/")[2] or model for model in models}
    file_names = list(names.values())
    return {model: name if file_names.count(name) == 1 else model for model, name in names.items()}


def _check_schema(schema: object, where: str) -> None:
    if schema == SCHEMA:
        return
    if str(schema).startswith(f"{_KIND}/"):
        raise InputError(f"{where} is of another version, {schema}, and this one reads {SCHEMA}; measure again.")
    kind = "has no schema" if schema is None else f"is a {schema} document"
    raise InputError(f"{where} {kind}; a benchmark's is {SCHEMA}, which `rexport bench MODEL -o FILE` writes.")


def _stated(value: Any) -> Any:
    """Return a document without the keys that are null."""
    if isinstance(value, dict):
        return {key: _stated(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_stated(item) for item in value]
    return value
