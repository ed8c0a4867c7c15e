"""The profile that ``rexport tune`` writes: which file runs best where, how, and what to expect of it.

A small TOML file (https://toml.io/en/v1.0.0) of schema ``rexport.profile/1``. Keys may be added to it, none renamed;
readers leave alone what they don't know. The module needs nothing but the standard library.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from rexport._errors import InputError, ModelFileError, OutputError
from rexport._files import file_sha256, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SCHEMA",
    "Estimate",
    "Profile",
    "ProfiledMachine",
    "load_profile",
    "write_profile",
]

SCHEMA = "rexport.profile/1"

_PRECISIONS = ("fp32", "fp16", "int8")
_REGROUP = ("off", "measure")
_GOALS = ("throughput", "latency")
_RUNTIME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number, and between which 95 % of the bootstrap's lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ProfiledMachine:
    """What was measured on: the processor's name, its INT8 instructions in words, and the cores that were usable."""

    cpu: str
    int8: str
    cores: int

    def differences(self, here: ProfiledMachine) -> tuple[str, ...]:
        """Say in which respects ``here`` is another machine; empty where it is not."""
        pairs = (
            ("processor", self.cpu, here.cpu),
            ("INT8 instructions", self.int8, here.int8),
            ("usable cores", str(self.cores), str(here.cores)),
        )
        return tuple(f"{what}: {there} there, {now} here" for what, there, now in pairs if there != now)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The best of what was measured under some bounds.

    Attributes:
        model: The chosen file, relative to the profile's folder, with ``/`` between folders.
        sha256: Of its bytes, in hex.
        precision: What it computes in: ``fp32``, ``fp16`` or ``int8``.
        regroup: ``measure`` if its grouped convolutions were regrouped for this, otherwise ``off``.
        runtime: Its name in :data:`rexport.runtimes.RUNTIMES`.
        threads: Threads that the runtime is to be given.
        batch: Images a call.
        goal: What was looked for, the most ``throughput`` or the least ``latency``.
        latency_bound_ms: What the 90th percentile of a call had to keep within, in milliseconds; ``None`` without.
        max_drop_points: The percentage points of top-1 that INT8 was allowed to lose; likewise.
        images_per_second: What to expect, at the median call.
        p50_ms: The median call, in milliseconds.
        p90_ms: The 90th percentile of calls, likewise.
        calls: How many calls these are from; p90 from fewer than 64 is an estimate.
        drop_points: The percentage points of top-1 that the file loses; ``None`` where that was not measured.
        machine: What was measured on.
        versions: Of the packages that took part, by name.
    """

    model: str
    sha256: str
    precision: str
    regroup: str
    runtime: str
    threads: int
    batch: int
    goal: str
    latency_bound_ms: float | None = None
    max_drop_points: float | None = None
    images_per_second: Estimate
    p50_ms: Estimate
    p90_ms: Estimate
    calls: int
    drop_points: float | None = None
    machine: ProfiledMachine
    versions: Mapping[str, str]

    def model_path(self, profile: Path) -> Path:
        """Return where the chosen file is, given where the profile is."""
        return profile.parent / PurePosixPath(self.model)

    def check_model(self, path: Path) -> None:
        """Make sure that ``path`` is the file that was measured, byte by byte.

        Raises:
            ModelFileError: It is another one, or can't be read.
        """
        try:
            found = file_sha256(path)
        except OSError as error:
            raise ModelFileError(
                f"{path}, the file of the profile, can't be read ({error.strerror}); put it there, or run `rexport "
                "tune` again."
            ) from error
        if found != self.sha256:
            raise ModelFileError(
                f"{path} is not the file that the profile was measured with: its SHA-256 is {found[:12]}… instead of "
                f"{self.sha256[:12]}…; bring the file back, or run `rexport tune` again."
            )

    def to_toml(self) -> str:
        """Return the text of the file.

        Raises:
            OutputError: A name in it is not text.
        """
        lines = [
            "# What `rexport tune` found best here. Run it again with `rexport bench --profile` and this file.",
            f"schema = {_string(SCHEMA)}",
            "",
            "[model]",
            f"file = {_string(self.model)}  # from this file's folder on",
            f"sha256 = {_string(self.sha256)}",
            f"precision = {_string(self.precision)}",
            f"regroup = {_string(self.regroup)}",
            "",
            "[run]",
            f"runtime = {_string(self.runtime)}",
            f"threads = {self.threads}",
            f"batch = {self.batch}  # images a call",
            "",
            "[asked]",
            f"goal = {_string(self.goal)}",
            *_optional("latency_bound_ms", self.latency_bound_ms, "for nine calls of ten"),
            *_optional("max_drop_points", self.max_drop_points, "percentage points of top-1"),
            "",
            f"[expected]  # from {self.calls} calls; 95 % intervals",
            *_estimate("images_per_second", self.images_per_second),
            *_estimate("p50_ms", self.p50_ms),
            *_estimate("p90_ms", self.p90_ms),
            f"calls = {self.calls}",
            *_optional("drop_points", self.drop_points, "percentage points of top-1"),
            "",
            "[machine]",
            f"cpu = {_string(self.machine.cpu)}",
            f"int8 = {_string(self.machine.int8)}",
            f"cores = {self.machine.cores}",
            "",
            "[versions]",
            *(f"{_key(name)} = {_string(version)}" for name, version in self.versions.items()),
        ]
        return "\n".join(lines) + "\n"


def write_profile(profile: Profile, path: Path) -> None:
    """Write the profile, whole or not at all.

    Raises:
        OutputError: It can't be written.
    """
    write_text(path, profile.to_toml())


def load_profile(path: Path) -> Profile:
    """Read a profile; whether the model is still the same is for :meth:`Profile.check_model` to say.

    Raises:
        InputError: It can't be read, is no profile, or says what can't be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} can't be read: {error.strerror}; name a profile, such as `rexport tune` writes."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a profile: it is not text.") from error
    except (ValueError, RecursionError) as error:  # ValueError: integers of thousands of digits, too
        raise InputError(f"{path} is not a profile: it is no TOML ({error}).") from error
    schema = document.get("schema")
    if schema != SCHEMA:
        raise InputError(
            f'{path} is not a profile that this version reads: its schema is {schema!r} instead of "{SCHEMA}"; write '
            "it anew with `rexport tune`."
        )
    return _profile(_Table(path, "", document))


@dataclass(frozen=True)
class _Table:
    """A table of the file, whose values are checked as they are taken; ``name`` is what errors call it."""

    path: Path
    name: str
    values: Mapping[str, Any]

    def table(self, key: str) -> _Table:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "is missing" if value is None else "is not a table")
        return _Table(self.path, f"{key}.", value)

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise self.wrong(key, f"is {value!r} and has to be text")
        return value

    def word(self, key: str, words: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in words:
            raise self.wrong(key, f"is {value!r} and has to be {' or '.join(words)}")
        return value

    def matching(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.text(key)
        if not pattern.fullmatch(value):
            raise self.wrong(key, f"is {value!r} and has to be {what}")
        return value

    def count(self, key: str) -> int:
        value = self._value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, f"is {value!r} and has to be a whole number from 1 on")
        return value

    def optional(self, key: str, *, signed: bool = False) -> float | None:
        return None if key not in self.values else self._number(key, self.values[key], signed=signed)

    def estimate(self, key: str) -> Estimate:
        value = self._number(key, self._value(key))
        ends_key = f"{key}_interval"
        ends = self._value(ends_key)
        if not isinstance(ends, list) or len(ends) != 2:
            raise self.wrong(ends_key, f"is {ends!r} and has to be two numbers")
        low, high = (self._number(ends_key, end) for end in ends)
        if low > high:
            raise self.wrong(ends_key, f"is {ends!r}, and its first number is the larger one")
        return Estimate(value=value, low=low, high=high)

    def wrong(self, key: str, why: str) -> InputError:
        return InputError(f"{self.path}: {self.name}{key} {why}; write the profile anew with `rexport tune`.")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.wrong(key, "is missing")
        return self.values[key]

    def _number(self, key: str, value: Any, *, signed: bool = False) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            converted = float(value) if number else math.nan
        except OverflowError:  # an integer beyond what a float holds
            converted = math.inf
        if not math.isfinite(converted) or (converted <= 0 and not signed):
            raise self.wrong(key, f"has {value!r} and takes finite numbers{'' if signed else ' above 0'}")
        return converted


def _profile(document: _Table) -> Profile:
    model, run, asked = document.table("model"), document.table("run"), document.table("asked")
    expected, machine, versions = document.table("expected"), document.table("machine"), document.table("versions")
    drop = asked.optional("max_drop_points", signed=True)
    if drop is not None and drop < 0:
        raise asked.wrong("max_drop_points", f"is {drop:g} and has to be 0 or more")
    return Profile(
        model=_relative(model),
        sha256=model.matching("sha256", _SHA256, "64 hexadecimal digits"),
        precision=model.word("precision", _PRECISIONS),
        regroup=model.word("regroup", _REGROUP),
        runtime=run.matching("runtime", _RUNTIME, "a name such as cpu"),
        threads=run.count("threads"),
        batch=run.count("batch"),
        goal=asked.word("goal", _GOALS),
        latency_bound_ms=asked.optional("latency_bound_ms"),
        max_drop_points=drop,
        images_per_second=expected.estimate("images_per_second"),
        p50_ms=expected.estimate("p50_ms"),
        p90_ms=expected.estimate("p90_ms"),
        calls=expected.count("calls"),
        drop_points=expected.optional("drop_points", signed=True),
        machine=ProfiledMachine(cpu=machine.text("cpu"), int8=machine.text("int8"), cores=machine.count("cores")),
        versions={name: versions.text(name) for name in versions.values},
    )


def _relative(model: _Table) -> str:
    file = model.text("file")
    if not file or "\0" in file or PurePosixPath(file).is_absolute() or PureWindowsPath(file).drive:
        raise model.wrong("file", f"is {file!r} and has to be a path from the profile's folder on")
    return file


def _string(text: str) -> str:
    """Return a basic string of TOML: what it can't hold as it is, escaped."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{text!r} holds bytes that are not text, and a profile is text; rename the file.") from error
    return '"' + "".join(_ESCAPES.get(one) or (f"\\u{ord(one):04X}" if _is_control(one) else one) for one in text) + '"'


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or ord(character) == 0x7F


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _optional(key: str, value: float | None, comment: str) -> list[str]:
    return [] if value is None else [f"{key} = {float(value)!r}  # {comment}"]


def _estimate(key: str, estimate: Estimate) -> list[str]:
    ends = f"[{float(estimate.low)!r}, {float(estimate.high)!r}]"
    return [f"{key} = {float(estimate.value)!r}", f"{key}_interval = {ends}"]
