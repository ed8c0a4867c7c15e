"""Measuring models: each in a process of its own, interleaved, with the raw times kept.

The names are loaded when first used, so that a worker process holds its runtime and nothing else: its peak
memory is part of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._lazy import lazy

if TYPE_CHECKING:
    from rexport.benchmarks.document import BenchResult, Row, Status
    from rexport.benchmarks.machine import Machine, machine_facts
    from rexport.benchmarks.suite import BenchInterrupted, bench

__all__ = ["BenchInterrupted", "BenchResult", "Machine", "Row", "Status", "bench", "machine_facts"]

_HOMES = {
    "BenchInterrupted": "suite",
    "BenchResult": "document",
    "Machine": "machine",
    "Row": "document",
    "Status": "document",
    "bench": "suite",
    "machine_facts": "machine",
}

__getattr__, __dir__ = lazy(__name__, __all__, _HOMES)
