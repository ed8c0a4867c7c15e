"""Measuring models: each in a process of its own, interleaved, with the raw times kept.

The names are loaded when first used, so that a worker process holds its runtime and nothing else: its peak
memory is part of the result.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rexport.benchmarks.machine import Machine, machine_facts
    from rexport.benchmarks.results import BenchResult, Row, Status
    from rexport.benchmarks.suite import BenchInterrupted, bench

__all__ = ["BenchInterrupted", "BenchResult", "Machine", "Row", "Status", "bench", "machine_facts"]

_HOMES = {
    "BenchInterrupted": "suite",
    "BenchResult": "results",
    "Machine": "machine",
    "Row": "results",
    "Status": "results",
    "bench": "suite",
    "machine_facts": "machine",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
