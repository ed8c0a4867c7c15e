"""Deployment settings: the file, runtime, batch and threads that ``rexport tune`` found best, and what to expect.

A small TOML file (https://toml.io/en/v1.0.0). Keys may be added to it, none renamed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

from msgspec import Meta

from rexport._cpu import this_cpu
from rexport._documents import Count, Finite, Positive, Sha256, as_record, load_toml
from rexport._errors import InputError, ModelFileError, OutputError
from rexport._files import file_sha256, write_text
from rexport.choices import Goal  # noqa: TC001 - msgspec reads the fields' types

__all__ = [
    "SCHEMAS",
    "DeploymentSettings",
    "Expected",
    "Goals",
    "Precision",
    "Regroup",
    "RunSettings",
    "TunedMachine",
    "TunedModel",
    "load_settings",
    "write_settings",
]

SCHEMAS = ("rexport.deployment-settings/1", "rexport.profile/1")
"""The schema that is written, and an older one of the same keys that is read too."""
Precision = Literal["fp32", "fp16", "int8"]
Regroup = Literal["off", "measure"]

_HEADER = "# What `rexport tune` found best here. Run it again with `rexport bench --settings` and this file.\n"
_ADVICE = "write it again with `rexport tune`"


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """The chosen file.

    Attributes:
        file: Its path from the settings' folder on, with ``/`` between folders.
        sha256: Of its bytes, in hex.
        precision: What it computes in.
        regroup: ``measure`` if its grouped convolutions were regrouped for this machine.
    """

    file: str
    sha256: Sha256
    precision: Precision
    regroup: Regroup

    def __post_init__(self) -> None:
        path = self.file
        if not path or "\0" in path or PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
            raise ValueError(f"File is {path!r} and has to be a path from the folder of the settings on")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How to run it: on which of :data:`rexport.runtimes.RUNTIMES`, and with how many images a call."""

    runtime: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]*$")]
    threads: Count
    batch: Count


@dataclass(frozen=True, kw_only=True)
class Goals:
    """The goal, the bound on nine calls of ten, and the percentage points of top-1 that INT8 may lose."""

    goal: Goal
    latency_bound_ms: Positive | None = None
    max_drop_points: Annotated[float, Meta(ge=0, le=100)] | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The measurements, with 95 % intervals.

    Attributes:
        images_per_second: At the median call.
        p50_ms: The median call.
        p90_ms: The 90th percentile of calls; from fewer than 64 ``calls`` it is an estimate.
        drop_points: The percentage points of top-1 that the file loses; ``None`` if that was not measured.
    """

    images_per_second: Positive
    images_per_second_interval: tuple[Positive, Positive]
    p50_ms: Positive
    p50_ms_interval: tuple[Positive, Positive]
    p90_ms: Positive
    p90_ms_interval: tuple[Positive, Positive]
    calls: Count
    drop_points: Finite | None = None

    def __post_init__(self) -> None:
        for low, high in (self.images_per_second_interval, self.p50_ms_interval, self.p90_ms_interval):
            if low > high:
                raise ValueError(f"The interval from {low} to {high} has its ends the wrong way round")


@dataclass(frozen=True, kw_only=True)
class TunedMachine:
    """The machine of the measurements: the processor's name, its INT8 instructions in words, and its usable cores."""

    cpu: str
    int8: str
    cores: Count

    @classmethod
    def here(cls) -> TunedMachine:
        """Return the facts of this machine."""
        cpu = this_cpu()
        return cls(cpu=cpu.name, int8=cpu.int8, cores=cpu.cores)

    def differences(self, current: TunedMachine) -> tuple[str, ...]:
        """Return the facts in which the ``current`` machine differs, as text; empty if there are none."""
        pairs = (
            ("processor", self.cpu, current.cpu),
            ("INT8 instructions", self.int8, current.int8),
            ("usable cores", str(self.cores), str(current.cores)),
        )
        return tuple(f"{fact}: {tuned} there, {now} here" for fact, tuned, now in pairs if tuned != now)


@dataclass(frozen=True, kw_only=True)
class DeploymentSettings:
    """The best of what was measured under some bounds; ``versions`` are those of the packages that took part."""

    model: TunedModel
    run: RunSettings
    asked: Goals
    expected: Expected
    machine: TunedMachine
    versions: dict[str, str] = field(default_factory=dict)

    def model_path(self, settings: Path) -> Path:
        """Return where the chosen file is, given where the settings are."""
        return settings.parent / PurePosixPath(self.model.file)

    def check_model(self, path: Path) -> None:
        """Make sure that ``path`` is the file that was measured, byte by byte.

        Raises:
            ModelFileError: It is another one, or can't be read.
        """
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise ModelFileError(
                f"{path}, the file of the settings, can't be read ({error.strerror}); put it there, or run `rexport "
                "tune` again."
            ) from error
        if sha256 != self.model.sha256:
            raise ModelFileError(
                f"{path} is not the file that the settings were measured with: its SHA-256 is {sha256[:12]}… instead "
                f"of {self.model.sha256[:12]}…; bring the file back, or run `rexport tune` again."
            )

    def to_toml(self) -> str:
        """Return the text of the file.

        Raises:
            OutputError: A name in it is not text.
        """
        import tomlkit

        tables = {
            name: {key: value for key, value in table.items() if value is not None}
            for name, table in asdict(self).items()
        }
        text = _HEADER + tomlkit.dumps({"schema": SCHEMAS[0], **tables})
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise OutputError(
                f"{self.model.file!r} holds bytes that are not text, and the settings are text; rename the file."
            ) from error
        return text


def write_settings(settings: DeploymentSettings, path: Path) -> None:
    """Write the settings, whole or not at all.

    Raises:
        OutputError: They can't be written.
    """
    write_text(path, settings.to_toml())


def load_settings(path: Path) -> DeploymentSettings:
    """Read settings; :meth:`DeploymentSettings.check_model` checks that the model is still the same.

    Raises:
        InputError: They can't be read, are of another schema, or hold impossible values.
    """
    values = load_toml(path)
    schema = values.get("schema")
    if schema not in SCHEMAS:
        raise InputError(
            f"{path} holds no deployment settings that this version reads: its schema is {schema!r} instead of "
            f"{SCHEMAS[0]!r}; {_ADVICE}."
        )
    return as_record(values, DeploymentSettings, where=path, advice=_ADVICE)
