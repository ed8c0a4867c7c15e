"""Profiles on the command line: writing what ``rexport tune`` chose, and running by one (``bench --profile``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._paths import READ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.deployment_profile import Estimate, Profile, ProfiledMachine
    from rexport.tuning import Bounds, Goal, Measured

__all__ = ["ProfileFile", "ProfiledBench", "Saved", "profiled_bench", "save_chosen"]

ProfileFile = Annotated[
    Path | None,
    READ,
    typer.Option(
        "--profile",
        help="Measure the file of a profile that `rexport tune` wrote, on its runtime, threads and batch; MODELS are "
        "compared with it.",
        show_default=False,
    ),
]
_DIGITS = 5  # significant ones that are written: more than any measurement has


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The profile that was written, and where; ``model`` is the file it names."""

    profile: Profile
    path: Path
    model: Path


@dataclass(frozen=True, kw_only=True)
class ProfiledBench:
    """What a bench is to do by a profile, as arguments of :func:`rexport.bench`; ``notes`` are for the user."""

    sources: tuple[str, ...]
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]
    threads: int
    notes: tuple[str, ...]


def save_chosen(chosen: Measured, path: Path, made_at: Path, *, goal: Goal, bounds: Bounds) -> Saved:
    """Write the profile, and before it the file, if that was made; both whole or not at all.

    Raises:
        OutputError: One of them can't be written.
    """
    from rexport._files import file_sha256, write_bytes
    from rexport.deployment_profile import Profile, write_profile

    candidate = chosen.candidate
    variant = candidate.variant
    model = made_at if variant.made else variant.path
    profile = Profile(
        model=_relative(model, path.parent),
        sha256=file_sha256(variant.path),
        precision=variant.precision,
        regroup="measure" if variant.regrouped else "off",
        runtime=candidate.runtime,
        threads=candidate.threads,
        batch=candidate.batch,
        goal=str(goal),
        latency_bound_ms=bounds.latency_ms,
        max_drop_points=bounds.drop_points,
        images_per_second=_rounded(chosen.throughput_estimate()),
        p50_ms=_rounded(chosen.percentile_estimate(50)),
        p90_ms=_rounded(chosen.percentile_estimate(90)),
        calls=len(chosen.seconds),
        drop_points=None if variant.drop_points is None else _significant(variant.drop_points),
        machine=_here(),
        versions=_versions(candidate.runtime),
    )
    profile.to_toml()  # raises before a file is written if it can't be
    if variant.made:
        write_bytes(made_at, variant.path.read_bytes())
    write_profile(profile, path)
    return Saved(profile=profile, path=path, model=model)


def profiled_bench(path: Path, models: Sequence[str] = ()) -> ProfiledBench:
    """Return what to measure by the profile at ``path``: its file first, and then other ``models``.

    Raises:
        InputError: The profile can't be used.
        ModelFileError: Its file is not there, or another one by now.
        UsageError: Its runtime is none of this version's.
    """
    from rexport._errors import UsageError
    from rexport.deployment_profile import load_profile
    from rexport.runtimes import RUNTIMES

    profile = load_profile(path)
    model = profile.model_path(path)
    profile.check_model(model)
    if profile.runtime not in RUNTIMES:
        raise UsageError(f"{path} asks for the runtime {profile.runtime!r}; choose from {', '.join(RUNTIMES)}.")
    expected = profile.images_per_second
    notes = [
        f"by {path}: {profile.runtime}, batch {profile.batch}, {profile.threads} thread"
        + "s" * (profile.threads != 1)
        + f"; {expected.value:,.1f} images per second are expected ({expected.low:,.1f} to {expected.high:,.1f})"
    ]
    differences = profile.machine.differences(_here())
    if differences:
        notes.append(
            f"{path} is of another machine ({'; '.join(differences)}), so other numbers, and another choice, may be "
            "right here; run `rexport tune` here to know."
        )
    return ProfiledBench(
        sources=(str(model), *(one for one in models if Path(one).resolve() != model.resolve())),
        runtimes=(profile.runtime,),
        batches=(profile.batch,),
        threads=profile.threads,
        notes=tuple(notes),
    )


def _here() -> ProfiledMachine:
    from rexport._cpu import this_cpu
    from rexport.deployment_profile import ProfiledMachine

    cpu = this_cpu()
    return ProfiledMachine(cpu=cpu.name, int8=cpu.int8, cores=cpu.cores)


def _versions(runtime: str) -> dict[str, str]:
    """Return the versions of what the times depend on: rexport, and what is behind the runtime."""
    import platform
    from importlib import metadata

    distributions = ("openvino",) if runtime == "openvino" else ("onnxruntime", "onnxruntime-gpu")
    versions = {"rexport": metadata.version("rexport"), "python": platform.python_version()}
    for name in distributions:
        try:
            versions[distributions[0]] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        break
    return versions


def _relative(model: Path, folder: Path) -> str:
    """Return the path from the profile's folder to the file."""
    import os

    from rexport._errors import UsageError

    try:
        return Path(os.path.relpath(model.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on Windows, another drive
        raise UsageError(f"A profile names its file from its own folder on, and {model} is on another drive.") from None


def _rounded(estimate: Estimate) -> Estimate:
    from rexport.deployment_profile import Estimate

    return Estimate(
        value=_significant(estimate.value), low=_significant(estimate.low), high=_significant(estimate.high)
    )


def _significant(value: float) -> float:
    return value if value == 0 or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
