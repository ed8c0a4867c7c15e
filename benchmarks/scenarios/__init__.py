"""The ways of asking a model that MLPerf tells apart: one query at a time, all at once, or as they come.

Reddi et al., *MLPerf Inference Benchmark*, ISCA 2020 (arXiv:1911.02549), section III-D. The names are loaded when
first used: the process of the system under test, which is in this package, holds its runtime and little else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._lazy import lazy

if TYPE_CHECKING:
    from rexport.benchmarks.scenarios.outcome import Outcome, ScenariosInterrupted, run_job, run_rows
    from rexport.benchmarks.scenarios.request import ScenarioRequest
    from rexport.benchmarks.scenarios.results import OfflineResult, ServerResult, SingleStreamResult
    from rexport.benchmarks.scenarios.run import run_offline, run_server, run_single_stream
    from rexport.benchmarks.scenarios.scenario import Scenario

__all__ = [
    "OfflineResult",
    "Outcome",
    "Scenario",
    "ScenarioRequest",
    "ScenariosInterrupted",
    "ServerResult",
    "SingleStreamResult",
    "run_job",
    "run_offline",
    "run_rows",
    "run_server",
    "run_single_stream",
]

_HOMES = {
    "ScenarioRequest": "request",
    "OfflineResult": "results",
    "Outcome": "outcome",
    "Scenario": "scenario",
    "ScenariosInterrupted": "outcome",
    "ServerResult": "results",
    "SingleStreamResult": "results",
    "run_job": "outcome",
    "run_offline": "run",
    "run_rows": "outcome",
    "run_server": "run",
    "run_single_stream": "run",
}

__getattr__, __dir__ = lazy(__name__, __all__, _HOMES)
