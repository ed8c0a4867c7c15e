"""A benchmark against an earlier one: what changed beyond noise, and what can't be told.

    ratio    r = T_new / T_old,  T = images per second

with the 95 % interval of :mod:`rexport.benchmarks.reports.noise` from the raw times of both. A row is faster or
slower if the interval leaves 1 out, and a regression past P per cent if even its upper end is below 1 - P/100.

Two runs are not interleaved, so the machine itself may have changed between them. Where all rows changed by what may
be one factor, that is said. Versions of packages may differ: to see what they change is what comparisons are for.
Another processor, or another number of cores, is no regression of a model: ratios are still shown, marked, and a bound
on them is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rexport._errors import GateError, InputError, UsageError
from rexport._words import counted
from rexport.benchmarks.document import SCHEMA, read_document
from rexport.benchmarks.reports.noise import ratio_interval, throughput
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.benchmarks.document import BenchResult, Row
    from rexport.benchmarks.machine import Machine

__all__ = ["Change", "Changes", "RowKey", "Verdict", "compare", "require_same_machine"]

_NAMED = 3  # rows in an error


class Verdict(StrEnum):
    """What a row's interval says."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"  # the interval holds 1
    UNKNOWN = "unknown"  # no raw times to tell noise by


@dataclass(frozen=True, kw_only=True, order=True)
class RowKey:
    """What makes a row of one run the same as a row of another; ``model`` is the name of its file."""

    model: str
    runtime: str
    batch: int
    threads: int
    scenario: str

    def __str__(self) -> str:
        """Return the key in words."""
        threads = counted(self.threads, "thread")
        scenario = "" if self.scenario == Scenario.SINGLE_STREAM else f", {self.scenario}"
        return f"{self.model} on {self.runtime}, batch {self.batch}, {threads}{scenario}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A row that both runs measured.

    Attributes:
        key: Which row.
        old_per_second: Images (in the server scenario: queries) a second, as the documents have them.
        new_per_second: Likewise.
        ratio: How many times as fast it is now, from rounds and launches: where calls scatter, not quite the quotient.
        interval: 95 %, and ``None`` where nothing is known of the noise.
    """

    key: RowKey
    old_per_second: float
    new_per_second: float
    ratio: float
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> Verdict:
        """Whether it changed beyond noise."""
        if self.interval is None:
            return Verdict.UNKNOWN
        low, high = self.interval
        if low > 1:
            return Verdict.FASTER
        if high < 1:
            return Verdict.SLOWER
        return Verdict.SAME


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is different between two runs.

    Attributes:
        rows: Those that both measured, in the new run's order.
        machine: In which the machines differ so that times can't be compared, a sentence each.
        versions: Which other facts of the machine differ, a sentence each.
        broken: Rows that were measured before and now fail, are unavailable or give wrong outputs: which, and why.
        gone: Rows that only the old run has.
        appeared: Rows that only the new run has measured.
        single_launch: Whether a run started each process only once, so that intervals leave out how much one process
            differs from the next.
        max_regression: How many per cent a row may be slower, if that was asked.
    """

    rows: tuple[Change, ...]
    machine: tuple[str, ...]
    versions: tuple[str, ...]
    broken: tuple[tuple[RowKey, str], ...]
    gone: tuple[RowKey, ...]
    appeared: tuple[RowKey, ...]
    single_launch: bool
    max_regression: float | None

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The rows that are surely slower by more than was allowed; none if no bound was given."""
        if self.max_regression is None:
            return ()
        least = 1 - self.max_regression / 100
        return tuple(row for row in self.rows if row.interval is not None and row.interval[1] < least)

    @property
    def common_change(self) -> tuple[float, float] | None:
        """The factors that would explain the changes of all rows, if there are any and 1 is none of them."""
        intervals = [row.interval for row in self.rows if row.interval is not None]
        if len(intervals) < 2:
            return None
        low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
        if low > high or low <= 1 <= high:
            return None
        return low, high

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the rows come to, and what is different beside them."""
        verdicts = [row.verdict for row in self.rows]
        counts = [
            f"{verdicts.count(verdict)} {words}"
            for verdict, words in (
                (Verdict.FASTER, "faster beyond noise"),
                (Verdict.SLOWER, "slower beyond noise"),
                (Verdict.SAME, "the same within noise"),
                (Verdict.UNKNOWN, "without the raw times to tell"),
            )
            if verdict in verdicts
        ]
        rows = counted(len(self.rows), "row")
        sentences = [f"{rows} in both runs: {', '.join(counts)}." if counts else "No row was measured in both runs."]
        if self.machine:
            sentences.append(f"ANOTHER MACHINE: {'; '.join(self.machine)}. The ratios compare machines, not models.")
        if self.versions:
            sentences.append(f"Other versions: {'; '.join(self.versions)}.")
        if self.single_launch and self.rows:
            sentences.append(
                "Each process was started only once, and how memory came to lie in it is not in the intervals: take a "
                "change of a few per cent for real if it is there again in another run."
            )
        if self.common_change is not None:
            low, high = self.common_change
            sentences.append(
                f"One factor between {low:.2f} and {high:.2f} explains all rows: look for its cause in the machine "
                "first (its clock, its heat, other programs), then in the versions."
            )
        sentences += [f"Ran before, and no longer does: {key}: {reason}" for key, reason in self.broken]
        sentences += [f"Only in the old run: {key}." for key in self.gone]
        sentences += [f"Only in the new run: {key}." for key in self.appeared]
        return tuple(sentences)

    def require(self) -> None:
        """Hold the run to ``max_regression``, if there is one.

        Raises:
            GateError: A row is slower by more than that, or no longer runs as it did.
            InputError: The runs can't be compared: other machines, or no row that both measured with their times.
        """
        if self.max_regression is None:
            return
        if self.machine:
            raise _other_machine(self.machine)
        if self.broken:
            rows = "; ".join(f"{key}: {reason}" for key, reason in self.broken[:_NAMED])
            raise GateError(f"What ran before no longer does{_more(len(self.broken))}: {rows}")
        if all(row.interval is None for row in self.rows):
            raise InputError(
                "No row was measured in both runs with its times, so --max-regression has nothing to hold for; "
                "compare with a run of the same models, runtimes, batches and threads."
            )
        if self.regressions:
            worst = sorted(self.regressions, key=lambda row: row.ratio)
            rows = "; ".join(f"{row.key}: {_times(row)}" for row in worst[:_NAMED])
            raise GateError(f"Slower by more than {self.max_regression:g} %{_more(len(worst))}: {rows}.")

    def to_json(self) -> dict[str, Any]:
        """Return the changes as a JSON object."""
        return {
            "rows": [
                {
                    **asdict(row.key),
                    "old_per_second": row.old_per_second,
                    "new_per_second": row.new_per_second,
                    "ratio": row.ratio,
                    "interval": row.interval and list(row.interval),
                    "verdict": row.verdict.value,
                    "regression": row in self.regressions,
                }
                for row in self.rows
            ],
            "other_machine": list(self.machine),
            "other_versions": list(self.versions),
            "broken": [{**asdict(key), "reason": reason} for key, reason in self.broken],
            "gone": [asdict(key) for key in self.gone],
            "appeared": [asdict(key) for key in self.appeared],
            "max_regression_percent": self.max_regression,
        }


def compare(
    old: Mapping[str, Any] | BenchResult, new: Mapping[str, Any] | BenchResult, max_regression: float | None = None
) -> Changes:
    """Compare two benchmarks, or their documents of schema ``rexport.bench/1``.

    Args:
        old: The earlier run.
        new: The later one.
        max_regression: How many per cent a row may be slower; :meth:`Changes.require` holds the run to it.

    Raises:
        InputError: A document is of another schema or broken.
        UsageError: ``max_regression`` is no percentage from 0 up to 100.
    """
    if max_regression is not None and not 0 <= max_regression < 100:
        raise UsageError(f"--max-regression {max_regression:g}: must be a percentage from 0 to below 100, such as 5.")
    before, after = read_document(old, "the old benchmark"), read_document(new, "the new benchmark")
    old_rows, new_rows = _keyed(before, after), _keyed(after, before)
    changes, broken, appeared = [], [], []
    for key, row in new_rows.items():
        earlier = old_rows.get(key)
        if earlier is None or not earlier.ok:
            if row.ok:
                appeared.append(key)
        elif not row.ok:
            broken.append((key, row.reason or f"It is {row.status}."))
        else:
            if row.wrong and not earlier.wrong:
                broken.append((key, "Its outputs are wrong now."))
            changes += _change(key, earlier, row)
    return Changes(
        rows=tuple(changes),
        machine=_machine_differences(before.machine, after.machine),
        versions=_other_differences(before.machine, after.machine),
        broken=tuple(broken),
        gone=tuple(key for key, row in old_rows.items() if row.ok and key not in new_rows),
        appeared=tuple(appeared),
        single_launch=any(len(row.launches) < 2 for row in (*before.measured, *after.measured) if row.rounds),
        max_regression=max_regression,
    )


def require_same_machine(old: Mapping[str, Any] | BenchResult, machine: Mapping[str, Any]) -> None:
    """Refuse, before anything is measured on ``machine``, to hold it to times from another one.

    Raises:
        InputError: They differ in what times depend on.
    """
    now = read_document({"schema": SCHEMA, "machine": machine, "rows": []})
    differences = _machine_differences(read_document(old, "the old benchmark").machine, now.machine)
    if differences:
        raise _other_machine(differences)


def _keyed(document: BenchResult, counterpart: BenchResult) -> dict[RowKey, Row]:
    """Return the rows by what they are; of rows that are the same, the first."""
    # two files of one name in either run: whole paths are what tells them apart in both
    names = document.file_names | {model: name for model, name in counterpart.file_names.items() if model == name}
    keyed: dict[RowKey, Row] = {}
    for row in document.rows:
        key = RowKey(
            model=names[row.model],
            runtime=row.runtime,
            batch=row.batch,
            threads=row.threads,
            scenario=row.scenario or Scenario.SINGLE_STREAM,
        )
        keyed.setdefault(key, row)
    return keyed


def _change(key: RowKey, old: Row, new: Row) -> list[Change]:
    """Return the change of a row, or none where there is no throughput on both sides."""
    if key.scenario == Scenario.SERVER:  # times depend on the rate; the rate that held is one number
        before, after = (row.server and row.server.rate_per_second for row in (old, new))
    else:
        before, after = old.images_per_second, new.images_per_second
    if old.rounds and new.rounds and key.scenario != Scenario.SERVER:
        typical = throughput(old), throughput(new)
        before, after = before or typical[0], after or typical[1]
        ratio, interval = typical[1] / typical[0], ratio_interval(old, new)
    elif before and after:
        ratio, interval = after / before, None
    else:
        return []
    return [Change(key=key, old_per_second=before, new_per_second=after, ratio=ratio, interval=interval)]


def _machine_differences(old: Machine, new: Machine) -> tuple[str, ...]:
    return _differences(
        ("the processor", old.cpu, new.cpu),
        ("the architecture", old.architecture, new.architecture),
        ("the number of cores", old.cores, new.cores),
        ("INT8", old.int8, new.int8),
        *((name, old.other.get(name), new.other.get(name)) for name in ("gpu", "gpus", "device")),
    )


def _other_differences(old: Machine, new: Machine) -> tuple[str, ...]:
    names = dict.fromkeys([*old.packages, *new.packages])
    return _differences(
        ("the system", old.os, new.os),
        ("python", old.python, new.python),
        *((name, old.packages.get(name), new.packages.get(name)) for name in names),
    )


def _differences(*facts: tuple[str, int | str | None, int | str | None]) -> tuple[str, ...]:
    """Say which facts, a name with its value before and after, differ."""
    return tuple(
        f"{name} was {_shown(before)} and is {_shown(after)}" for name, before, after in facts if before != after
    )


def _other_machine(differences: tuple[str, ...]) -> InputError:
    return InputError(
        f"The old run is from another machine ({'; '.join(differences)}), whose times say nothing about this one; "
        "measure the old models here, or leave --max-regression out."
    )


def _shown(value: int | str | None) -> str:
    return "not there" if value is None else str(value)


def _times(row: Change) -> str:
    low, high = row.interval or (row.ratio, row.ratio)
    return f"{row.ratio:.2f} × ({low:.2f} to {high:.2f})"


def _more(count: int) -> str:
    return "" if count <= _NAMED else f" ({count} rows, the first {_NAMED})"
