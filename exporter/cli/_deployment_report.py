"""What ``rexport tune`` says of what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.benchmarks import Machine
    from rexport.cli._profile import Saved
    from rexport.cli._variants import Made
    from rexport.tuning import Bounds, Candidate, Measured, SearchResult, Trial

__all__ = ["SCHEMA", "document", "print_result"]

SCHEMA = "rexport.tune/1"
_SHOWN = 12  # rows of the table
_FEW_CALLS = 64  # below, p90 is an estimate


def document(
    model: Path,
    goal: str,
    bounds: Bounds,
    machine: Machine,
    made: Made,
    found: SearchResult,
    saved: Saved | None,
) -> dict[str, Any]:
    """Return everything that was measured as a JSON document."""
    return {
        "schema": SCHEMA,
        "machine": machine.to_json(),
        "model": str(model),
        "goal": str(goal),
        "latency_bound_ms": bounds.latency_ms,
        "max_drop_points": bounds.drop_points,
        "seconds": found.seconds,
        "profile": saved and str(saved.path),
        "file": saved and str(saved.model),
        "sha256": saved and saved.profile.sha256,
        "chosen": None if found.chosen is None else _described(found.chosen.candidate),
        "nearest": None if found.nearest is None else _described(found.nearest.candidate),
        "candidates": [_trial(trial, bounds) for trial in found.trials],
        "left_out": [{"what": one.what, "reason": one.reason} for one in made.left_out],
        "quantized": [{**result.to_json(), "file": None} for result in made.quantized],  # it was a temporary one
    }


def print_result(found: SearchResult, machine: Machine, made: Made, saved: Saved | None, output: Path) -> None:
    """Print the table of the best, what was chosen, and notes of what was not measured and why."""
    from rexport.cli import _console

    ranked = _ranked(found)
    if ranked:
        columns = ("file", "runtime", "threads", "batch", "img/s", "95 %", "p50 ms", "p90 ms", "drop", "")
        rows = [_cells(trial, found) for trial in ranked[:_SHOWN]]
        _console.print_table(columns, rows, left=(0, 1, 9))
        if len(ranked) > _SHOWN:
            _console.note(f"{len(ranked) - _SHOWN} more were measured; --json has all of them.")
    if saved is not None and found.chosen is not None:
        came = "made for it" if found.chosen.candidate.variant.made else "as it is"
        print(f"{output}: {found.chosen.candidate}; {saved.model}, {came}")
        if len(found.chosen.seconds) < _FEW_CALLS:
            _console.note(f"p90 is from {len(found.chosen.seconds)} calls and an estimate; give more --seconds.")
    if machine.is_busy:
        _console.note(
            f"the machine was busy in the minute before (load {machine.load_average}); if it still was, the choice may "
            "be another when it is idle."
        )
    for one in made.left_out:
        _console.note(f"{one.what} is left out: {one.reason}")
    reasons: dict[str, list[Candidate]] = {}
    for trial in found.trials:
        if trial.reason is not None:
            reasons.setdefault(trial.reason, []).append(trial.candidate)
    for reason, candidates in reasons.items():
        more = f" and {len(candidates) - 1} more" * (len(candidates) > 1)
        _console.note(f"{candidates[0]}{more} left out: {reason}")


def _ranked(found: SearchResult) -> list[Trial]:
    """Return what was measured: the chosen one, the other finalists, and the rest, each by images per second."""

    def key(trial: Trial) -> tuple[bool, bool, float]:
        assert trial.measured is not None
        is_chosen = found.chosen is not None and trial.candidate == found.chosen.candidate
        return (not is_chosen, not trial.is_finalist, -trial.measured.images_per_second)

    return sorted((trial for trial in found.trials if trial.measured is not None), key=key)


def _cells(trial: Trial, found: SearchResult) -> tuple[str, ...]:
    measured = trial.measured
    assert measured is not None
    variant, throughput = trial.candidate.variant, measured.throughput_estimate()
    chosen = found.chosen is not None and trial.candidate == found.chosen.candidate
    return (
        variant.precision + ", regrouped" * variant.regrouped,
        trial.candidate.runtime,
        str(trial.candidate.threads),
        str(trial.candidate.batch),
        f"{throughput.value:,.1f}",
        f"{throughput.low:,.1f}–{throughput.high:,.1f}",
        f"{measured.percentile_ms(50):.2f}",
        f"{measured.percentile_ms(90):.2f}",
        "–" if variant.drop_points is None else f"{variant.drop_points:.2f}",
        "← chosen" if chosen else trial.stages[-1][0].replace("final", ""),
    )


def _described(candidate: Candidate) -> dict[str, Any]:
    variant = candidate.variant
    return {
        "precision": variant.precision,
        "regroup": "measure" if variant.regrouped else "off",
        "made": variant.made,
        "runtime": candidate.runtime,
        "threads": candidate.threads,
        "batch": candidate.batch,
        "drop_points": variant.drop_points,
    }


def _trial(trial: Trial, bounds: Bounds) -> dict[str, Any]:
    return {
        **_described(trial.candidate),
        "status": "ok" if trial.reason is None else "left out",
        "reason": trial.reason,
        "finalist": trial.is_finalist,
        **_numbers(trial.measured, bounds),
        "stages": [
            {
                "stage": stage,
                "seconds": [second for block in rounds for second in block],
                "calls_per_round": [len(block) for block in rounds],
            }
            for stage, rounds in trial.stages
        ],
    }


def _numbers(measured: Measured | None, bounds: Bounds) -> dict[str, Any]:
    if measured is None:
        keys = ("images_per_second", "images_per_second_interval", "latency_ms", "calls", "holds")
        return dict.fromkeys(keys)
    throughput = measured.throughput_estimate()
    return {
        "images_per_second": throughput.value,
        "images_per_second_interval": [throughput.low, throughput.high],
        "latency_ms": {"p50": measured.percentile_ms(50), "p90": measured.percentile_ms(90)},
        "calls": len(measured.seconds),
        "holds": bounds.hold(measured),
    }
