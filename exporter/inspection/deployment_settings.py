"""Deployment settings of ``rexport tune``: what they run, how, what to expect, and whether the file is the same."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rexport._errors import ModelFileError
from rexport._words import counted
from rexport.deployment_settings import load_settings
from rexport.inspection.report import FileReport

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deployment_settings import DeploymentSettings

__all__ = ["describe", "recognises"]

_SCHEMA = re.compile(rb"^schema\s*=\s*[\"']rexport\.(deployment-settings|profile)/", re.MULTILINE)


def recognises(path: Path, head: bytes) -> bool:  # noqa: ARG001
    """Say whether a file that begins with ``head`` holds deployment settings."""
    return _SCHEMA.search(head) is not None


def describe(path: Path) -> FileReport:
    """Describe deployment settings.

    Raises:
        InputError: They are broken.
    """
    settings = load_settings(path)
    model = settings.model_path(path)
    try:
        settings.check_model(model)
        state = "the file that was measured"
    except ModelFileError as error:
        state = str(error)
    goals, run, machine, expected = settings.asked, settings.run, settings.machine, settings.expected
    best = [f"the best {goals.goal}"]
    if goals.latency_bound_ms is not None:
        best.append(f"p90 within {goals.latency_bound_ms:g} ms")
    if goals.max_drop_points is not None:
        best.append(f"at most {counted(goals.max_drop_points, 'point')} of top-1 lost")
    precision: list[str] = [settings.model.precision]
    if settings.model.regroup == "measure":
        precision.append("regrouped")
    facts = [
        ("settings", ", ".join(best)),
        ("model", f"{model}: {state}"),
        ("precision", ", ".join(precision)),
        ("runs on", f"{run.runtime}, batch {run.batch}, {counted(run.threads, 'thread')}"),
        ("images per second", _with_interval(expected.images_per_second, expected.images_per_second_interval)),
        ("p50", _with_interval(expected.p50_ms, expected.p50_ms_interval) + " ms"),
        ("p90", _with_interval(expected.p90_ms, expected.p90_ms_interval) + f" ms, from {expected.calls} calls"),
    ]
    if expected.drop_points is not None:
        facts.append(("loses", f"{expected.drop_points:.2f} points of top-1"))
    versions = ", ".join(f"{name} {version}" for name, version in settings.versions.items())
    facts += [
        ("machine", f"{machine.cpu}, {counted(machine.cores, 'core')}, {machine.int8}"),
        ("made by", versions or "unknown"),
    ]
    document = {**_document(settings), "model_state": state}
    return FileReport(kind="deployment settings", facts=tuple(facts), tables=(), document=document)


def _document(settings: DeploymentSettings) -> dict[str, Any]:
    """Return the settings in one level, as ``inspect --json`` gives them."""
    model, expected = asdict(settings.model), asdict(settings.expected)
    estimates = {}
    for name in ("images_per_second", "p50_ms", "p90_ms"):
        low, high = expected.pop(f"{name}_interval")
        estimates[name] = {"value": expected.pop(name), "low": low, "high": high}
    return {
        "model": model.pop("file"),
        **model,
        **asdict(settings.run),
        **asdict(settings.asked),
        **estimates,
        **expected,
        "machine": asdict(settings.machine),
        "versions": dict(settings.versions),
    }


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:,.2f} ({low:,.2f} to {high:,.2f})"
