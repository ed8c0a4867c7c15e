"""What a measurement on a GPU depends on, as NVIDIA's own tool tells it."""

from __future__ import annotations

import csv
import io
import subprocess
from typing import Any

from rexport.benchmarks.machine import version_of

__all__ = ["gpu_facts"]

_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "compute_capability": "compute_cap",
    "memory": "memory.total",
    "clock": "clocks.sm",
    "most_clock": "clocks.max.sm",
    "memory_clock": "clocks.mem",
    "power_limit": "power.limit",
    "temperature": "temperature.gpu",
    "mig": "mig.mode.current",
}
_PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx")


def gpu_facts() -> dict[str, Any]:
    """Return the first GPU's name, driver, clocks and so on with their units, ``None`` where unknown.

    Under ``packages`` are the versions of what runs on it.
    """
    versions = {name: version_of(name) for name in _PACKAGES}
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS.values())}", "--format=csv,noheader"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {**dict.fromkeys(_FIELDS), "packages": versions}
    return {**facts_in(finished.stdout), "packages": versions}


def facts_in(text: str) -> dict[str, str | None]:
    """Return the facts in what ``nvidia-smi`` prints, of the first GPU alone."""
    row = next(csv.reader(io.StringIO(text), skipinitialspace=True), [])
    if len(row) != len(_FIELDS):
        return dict.fromkeys(_FIELDS)
    return {name: None if value.startswith("[") else value for name, value in zip(_FIELDS, row, strict=True)}
