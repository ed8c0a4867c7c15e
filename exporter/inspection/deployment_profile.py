"""A profile of ``rexport tune``: what it says to run, how, what to expect, and whether the file is still the same."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from rexport._errors import ModelFileError
from rexport.deployment_profile import Estimate, load_profile
from rexport.inspection.report import FileReport

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["describe", "recognises"]

_SCHEMA = re.compile(rb"^schema\s*=\s*[\"']rexport\.profile/", re.MULTILINE)


def recognises(path: Path, head: bytes) -> bool:  # noqa: ARG001
    """Say whether a file that begins with ``head`` is a profile."""
    return _SCHEMA.search(head) is not None


def describe(path: Path) -> FileReport:
    """Describe a profile.

    Raises:
        InputError: It is broken.
    """
    profile = load_profile(path)
    model = profile.model_path(path)
    try:
        profile.check_model(model)
        state = "the file that was measured"
    except ModelFileError as error:
        state = str(error)
    bounds = []
    if profile.latency_bound_ms is not None:
        bounds.append(f"p90 within {profile.latency_bound_ms:g} ms")
    if profile.max_drop_points is not None:
        bounds.append(f"at most {profile.max_drop_points:g} points of top-1 lost")
    machine = profile.machine
    facts = [
        ("profile", f"the best {profile.goal}" + "".join(f", {bound}" for bound in bounds)),
        ("model", f"{model}: {state}"),
        ("precision", profile.precision + ", regrouped" * (profile.regroup == "measure")),
        (
            "runs on",
            f"{profile.runtime}, batch {profile.batch}, {profile.threads} thread" + "s" * (profile.threads != 1),
        ),
        ("images per second", _in_words(profile.images_per_second)),
        ("p50", f"{_in_words(profile.p50_ms)} ms"),
        ("p90", f"{_in_words(profile.p90_ms)} ms, from {profile.calls} calls"),
        ("machine", f"{machine.cpu}, {machine.cores} core" + "s" * (machine.cores != 1) + f", {machine.int8}"),
        ("made by", ", ".join(f"{name} {version}" for name, version in profile.versions.items()) or "unknown"),
    ]
    if profile.drop_points is not None:
        facts.insert(7, ("loses", f"{profile.drop_points:.2f} points of top-1"))
    return FileReport(
        kind="profile",
        facts=tuple(facts),
        tables=(),
        document={**asdict(profile), "versions": dict(profile.versions), "model_state": state},
    )


def _in_words(estimate: Estimate) -> str:
    return f"{estimate.value:,.2f} ({estimate.low:,.2f} to {estimate.high:,.2f})"
