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
from rexport.benchmarks.scenarios.loadgen_sut import MISSING
from rexport.benchmarks.scenarios.process import opened
from rexport.benchmarks.scenarios.results import FEWEST_QUERIES
from rexport.benchmarks.scenarios.run import check_latency_bound, check_options, warm_up
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from rexport.benchmarks.scenarios.image import Image
    from rexport.runtimes.source import Source

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


def run_loadgen(
    source: Source,
    runtime: str,
    scenario: Scenario,
    *,
    threads: int | None = None,
    batch: int = 1,
    rate: float | None = None,
    latency_bound_ms: float | None = None,
    percentile: int = 99,
    min_seconds: float = 10.0,
    min_queries: int | None = None,
    image: Image | None = None,
    seed: int = 0,
) -> LoadgenResult:
    """Let LoadGen run a scenario on a model.

    Args:
        source: The model.
        runtime: A name from :data:`rexport.runtimes.RUNTIMES`.
        scenario: Which.
        threads: Threads of the runtime; by default all usable cores.
        batch: The most samples to answer with one call; of single-stream, 1.
        rate: Queries per second to issue; of the server scenario, where it is needed. LoadGen does not search: take
            what :func:`~rexport.benchmarks.scenarios.run_server` found.
        latency_bound_ms: Likewise, in milliseconds.
        percentile: Of the server scenario: 99 or 90 per cent have to be within the bound.
        min_seconds: The least duration.
        min_queries: The fewest queries; by default what the percentile takes (MLPerf: 64 for p90, 662 for p99).
        image: What a query carries; by default what the model takes.
        seed: Of the images. LoadGen's own seeds stay as they are.

    Raises:
        UsageError: There is no such runtime, or the arguments do not go together.
        UnavailableError: LoadGen is not installed, or the runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    server = scenario is Scenario.SERVER
    if scenario is Scenario.SINGLE_STREAM:
        batch = 1
    check_options(runtime, threads=threads, batch=batch, seconds=min_seconds)
    if server != (rate is not None) or server != (latency_bound_ms is not None):
        raise UsageError("LoadGen's server scenario, and no other, takes a rate and a latency bound.")
    if latency_bound_ms is not None:
        check_latency_bound(latency_bound_ms, seconds=min_seconds)
    if rate is not None and not 0 < rate < math.inf:
        raise UsageError(f"Queries arrive at a rate larger than zero per second, not {rate:g}.")
    if percentile not in (90, 99):
        raise UsageError(f"The percentile of a latency bound is 90 or 99, not {percentile}.")
    require_loadgen()
    judged = {Scenario.SERVER: percentile, Scenario.SINGLE_STREAM: 90}.get(scenario)
    fewest = min_queries or FEWEST_QUERIES.get(judged or 0, 1)
    with opened(source, runtime, image=image, threads=threads, batch=batch, seed=seed) as process:
        sizes = range(1 if server else batch, batch + 1)
        times = warm_up(process, sizes)
        capacity = max(sizes[0] / times[0], sizes[-1] / times[-1])
        target = {Scenario.SERVER: rate, Scenario.OFFLINE: capacity}.get(scenario)
        settings: dict[str, float] = {
            "min_duration_ms": math.ceil(min_seconds * 1e3),
            "min_query_count": fewest,
            # queries are made beforehand, and a run whose queries run out is INVALID: calls may turn out faster
            "single_stream_expected_latency_ns": max(1, round(times[0] / 4 * 1e9)),
        }
        if target is not None:
            settings |= {"server_target_qps": target, "offline_expected_qps": _MARGIN * target}
        if latency_bound_ms is not None:
            settings["server_target_latency_ns"] = round(latency_bound_ms * 1e6)
            settings["server_target_latency_percentile"] = percentile / 100
        issued = max(fewest, (rate or capacity) * min_seconds)
        entries = process.request(
            "loadgen",
            should_take=2 * (issued / min(rate or capacity, capacity)) + min_seconds,
            scenario=_NAMES[scenario],
            settings=settings,
        )
    return _result(
        entries,
        scenario=scenario,
        min_seconds=min_seconds,
        target=target,
        latency_bound_ms=latency_bound_ms,
        percentile=judged,
    )


def require_loadgen() -> None:
    """Raise :class:`UnavailableError` if LoadGen is not installed."""
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise UnavailableError(MISSING)


def _result(
    entries: dict[str, Any],
    *,
    scenario: Scenario,
    min_seconds: float,
    target: float | None,
    latency_bound_ms: float | None,
    percentile: int | None,
) -> LoadgenResult:
    queries = int(entries["result_query_count"])
    return LoadgenResult(
        scenario=scenario,
        valid=entries["result_validity"] == "VALID",
        reasons=_reasons(entries),
        samples_per_second=entries.get(_RATES[scenario]),
        latency_ms=Latency(**{f"p{percent}": _latency(entries, percent, queries) for percent in FEWEST_QUERIES}),
        queries=queries,
        min_seconds=min_seconds,
        target_per_second=target,
        latency_bound_ms=latency_bound_ms,
        percentile=percentile,
        early_stopping=_plain(entries.get("early_stopping_result", "")),
        version=str(entries["loadgen_version"]),
        note=_note(min_seconds),
    )


def _note(min_seconds: float) -> str:
    """Return what a verdict is worth."""
    short = ""
    if min_seconds < _OFFICIAL_SECONDS:
        short = f"it ran for {min_seconds:g} s, where submissions take {_OFFICIAL_SECONDS} s, and "
    return (
        f"this is not an MLPerf result: {short}MLPerf also wants its own images, an accuracy run and a review. VALID "
        "means that LoadGen's rules held for this run."
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
