"""MLPerf's own load generator on a model, and what it says of the run.

LoadGen (``pip install mlcommons-loadgen``) is the program that issues the queries of every MLPerf Inference submission,
measures the answers and says VALID or INVALID. Here it runs in performance mode on random images; that is the timing
half of MLPerf's rules, and a check on this package's own scenarios by a program of others.
"""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError, UsageError
from rexport.benchmarks.document import Latency, LoadgenResult
from rexport.benchmarks.results import FEWEST_QUERIES
from rexport.benchmarks.scenarios.loadgen_sut import MISSING
from rexport.benchmarks.scenarios.process import opened
from rexport.benchmarks.scenarios.run import warm_up
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from rexport.benchmarks.jobs import Job
    from rexport.benchmarks.scenarios.request import ScenarioRequest

__all__ = ["require_loadgen", "run_loadgen"]

_OFFICIAL_SECONDS = 600
_MARGIN = 1.2  # an offline run is of so many samples more than its duration should take
_NAMES = {Scenario.SINGLE_STREAM: "SingleStream", Scenario.OFFLINE: "Offline", Scenario.SERVER: "Server"}
_RATES = {
    Scenario.SINGLE_STREAM: "result_qps_with_loadgen_overhead",
    Scenario.OFFLINE: "result_samples_per_second",
    Scenario.SERVER: "result_completed_samples_per_sec",
}
# LoadGen's yes and no, and what a no means
_CONDITIONS = {
    "result_perf_constraints_met": "the latency at its percentile is above the bound",
    "result_min_duration_met": "min duration not satisfied",
    "result_min_queries_met": "min queries not satisfied",
    "early_stopping_met": "early stopping not satisfied",
}


def run_loadgen(job: Job, request: ScenarioRequest, *, rate: float | None = None) -> LoadgenResult:
    """Let LoadGen run a scenario on a model, with the 64 queries that p90 takes, the 662 of p99, or more.

    Args:
        job: The model; its batch is the most samples to answer with one call, or 1 in the single-stream scenario.
        request: The scenario. Of the server scenario p99 is judged by default.
        rate: Queries per second to issue; of the server scenario, where it is needed. LoadGen does not search: take
            what :func:`~rexport.benchmarks.scenarios.run_server` found.

    Raises:
        UsageError: The arguments do not go together.
        UnavailableError: LoadGen is not installed, or the runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    _check_rate(request, rate)
    require_loadgen()
    if request.scenario is Scenario.SINGLE_STREAM:
        job = job.with_batch(1)
    judged = {Scenario.SERVER: request.percentile or 99, Scenario.SINGLE_STREAM: 90}.get(request.scenario)
    fewest = FEWEST_QUERIES.get(judged or 0, 1)
    with opened(job) as process:
        sizes = [job.batch] if rate is None else range(1, job.batch + 1)
        times = warm_up(process, sizes)
        capacity = max(size / seconds for size, seconds in zip(sizes, times, strict=True))
        issued = max(fewest, (rate or capacity) * request.seconds)
        should_take = 2 * (issued / min(rate or capacity, capacity)) + request.seconds
        target = {Scenario.SERVER: rate, Scenario.OFFLINE: capacity}.get(request.scenario)
        settings = _settings(request, target=target, percentile=judged, one_call=times[0])
        entries = process.request(
            "loadgen", should_take=should_take, scenario=_NAMES[request.scenario], settings=settings
        )
    return _result(entries, request, target=target, percentile=judged)


def require_loadgen() -> None:
    """Raise :class:`UnavailableError` if LoadGen is not installed."""
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise UnavailableError(MISSING)


def _check_rate(request: ScenarioRequest, rate: float | None) -> None:
    if (request.scenario is Scenario.SERVER) != (rate is not None):
        raise UsageError("Only LoadGen's server scenario takes a rate and a latency bound.")
    if rate is not None and not 0 < rate < math.inf:
        raise UsageError(f"The query rate must be above 0 per second, not {rate:g}.")


def _settings(
    request: ScenarioRequest, *, target: float | None, percentile: int | None, one_call: float
) -> dict[str, float]:
    """Return LoadGen's settings; ``one_call`` is what the smallest call takes, in seconds."""
    settings: dict[str, float] = {
        "min_duration_ms": math.ceil(request.seconds * 1e3),
        "min_query_count": FEWEST_QUERIES.get(percentile or 0, 1),
        # queries are made beforehand, and a run whose queries run out is INVALID: calls may turn out faster
        "single_stream_expected_latency_ns": max(1, round(one_call / 4 * 1e9)),
    }
    if target is not None:
        settings |= {"server_target_qps": target, "offline_expected_qps": _MARGIN * target}
    if request.latency_bound_ms is not None and percentile is not None:
        settings["server_target_latency_ns"] = round(request.latency_bound_ms * 1e6)
        settings["server_target_latency_percentile"] = percentile / 100
    return settings


def _result(
    entries: dict[str, Any], request: ScenarioRequest, *, target: float | None, percentile: int | None
) -> LoadgenResult:
    queries = int(entries["result_query_count"])
    return LoadgenResult(
        scenario=request.scenario,
        valid=entries["result_validity"] == "VALID",
        reasons=_reasons(entries),
        samples_per_second=entries.get(_RATES[request.scenario]),
        latency_ms=Latency(**{f"p{percent}": _latency(entries, percent, queries) for percent in FEWEST_QUERIES}),
        queries=queries,
        min_seconds=request.seconds,
        target_per_second=target,
        latency_bound_ms=request.latency_bound_ms,
        percentile=percentile,
        early_stopping=_plain(entries.get("early_stopping_result", "")),
        version=str(entries["loadgen_version"]),
        note=_note(request.seconds),
    )


def _note(min_seconds: float) -> str:
    """Return what a verdict is worth."""
    short = ""
    if min_seconds < _OFFICIAL_SECONDS:
        short = f"it ran for {min_seconds:g} s, where submissions take {_OFFICIAL_SECONDS} s, and "
    return (
        f"this is not an MLPerf result: {short}MLPerf also requires its own images, an accuracy run and a review. "
        "VALID means that LoadGen's rules held for this run."
    )


def _reasons(entries: dict[str, Any]) -> tuple[str, ...]:
    if entries["result_validity"] == "VALID":
        return ()
    reasons = [meaning for key, meaning in _CONDITIONS.items() if entries.get(key) is False]
    sentences = [_plain(entries.get("result_invalid_reason", "")), *entries["errors"]]
    if entries.get("early_stopping_met") is False:
        sentences.append(_plain(entries.get("early_stopping_result", "")))
    return (*reasons, *(sentence for sentence in sentences if sentence))


def _latency(entries: dict[str, Any], percent: int, queries: int) -> float | None:
    nanoseconds: float | None = entries.get(f"result_{percent}.00_percentile_latency_ns")
    # of an offline run LoadGen reports the samples of its single query, which waited for each other
    if nanoseconds is None or queries < max(2, FEWEST_QUERIES[percent]):
        return None
    return nanoseconds / 1e6


def _plain(text: str) -> str:
    return " ".join(text.replace(" * ", " ").split())
