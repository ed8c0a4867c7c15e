"""What the rows come to: ours against the best of the peers, in speed and in accuracy.

    ratio = median over rounds r of  median(peer's calls in r) / median(our calls in r)

with its interval at 95 % (:mod:`rexport.benchmarks.intervals`); above 1 ours is faster. The best peer is
the one with the highest throughput in the finals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.studies._results import rounds_of
from rexport.benchmarks.results import speedup

from .settings import OURS
from .speed import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["accuracy_summary", "speed_summary"]

_KEYS = ("network", "runtime", "batch", "precision")


def speed_summary(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare ours with each peer, for every network, runtime, batch size and precision among the final rows.

    Args:
        rows: Of :class:`~.speed.Contest`, of all stages. Where a combination was measured several times, with new
            processes, each peer's rounds are joined with ours of the same time.

    Returns:
        For each combination that both have a row of: ``ours`` and ``best_peer`` (tool, setting, images per second),
        the ``ratio`` to the best peer with its ``interval``, and ``ratios`` to every peer.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["stage"] == "final" and row["status"] == "ok" and not row["broken"] and row["tool"] != BASELINE:
            groups.setdefault(tuple(row[key] for key in _KEYS), []).append(row)
    compared = ((key, _against_each(group)) for key, group in groups.items())
    return [{**dict(zip(_KEYS, key, strict=True)), **comparison} for key, comparison in compared if comparison]


def accuracy_summary(files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the INT8 files of networks with trained weights: for every figure the best of each tool's settings.

    Args:
        files: What :meth:`~.files.Made.to_json` gives, with the ``network``.

    Returns:
        For each network and tool ``images_top1`` …: the best agreement, SQNR in dB and drop of top-1 in points.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in files:
        if row["precision"] == "int8" and row["top1"] is not None:
            groups.setdefault((row["network"], row["tool"]), []).append(row)
    return [
        {
            "network": network,
            "tool": tool,
            "settings": len(group),
            "agreement": max(row["agreement"] for row in group),
            "sqnr_db": max(row["sqnr_db"] for row in group),
            "drop_points": min(100 * (row["fp32_top1"] - row["top1"]) for row in group),
        }
        for (network, tool), group in groups.items()
    ]


def _against_each(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare our rows with each other tool's; ``None`` if one of both is missing."""
    launches: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        launches.setdefault((row["tool"], row["setting"]), []).append(row)
    own = [group for (tool, _), group in launches.items() if tool == OURS]
    peers = [group for (tool, _), group in launches.items() if tool != OURS]
    if not own or not peers:
        return None
    best = max(own, key=_throughput)
    ratios = [{**_named(peer), **_ratio(peer, best)} for peer in sorted(peers, key=_throughput, reverse=True)]
    first = ratios[0]
    return {
        "ours": _named(best),
        "best_peer": {key: first[key] for key in ("tool", "setting", "images_per_second")},
        "ratio": first["ratio"],
        "interval": first["interval"],
        "ratios": ratios,
    }


def _throughput(rows: Sequence[dict[str, Any]]) -> float:
    """Return the mean over launches, in images per second."""
    return float(sum(row["images_per_second"] for row in rows)) / len(rows)


def _named(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"tool": rows[0]["tool"], "setting": rows[0]["setting"], "images_per_second": _throughput(rows)}


def _ratio(peer: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]]) -> dict[str, Any]:
    baseline_rounds = {row["launch"]: rounds_of(row) for row in baseline}
    pairs = [(rounds_of(row), baseline_rounds[row["launch"]]) for row in peer if row["launch"] in baseline_rounds]
    # both went through the same rounds; a row that needed more calls may have gone on for some of its own
    paired = [pair for rounds, own in pairs for pair in zip(rounds, own, strict=False)]
    ratio, interval = speedup([rounds for rounds, _ in paired], [own for _, own in paired])
    return {"ratio": ratio, "interval": list(interval)}
