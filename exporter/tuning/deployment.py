"""Searching the best way to run a model here: files × runtimes × batches × threads, under bounds, in bounded time.

Successive halving (Karnin, Koren, Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits"): all candidates are
measured briefly, then the better half again and each for longer, until few are left. The best four are measured
together, in turns and for longest, and one of them is chosen (see ``deployment_choice``). The first look takes 40 % of
the time, the halvings 20 %, and the last round 40 %.

The first look goes in groups, as all models of a group are in memory at once. With a bound on latency, smaller batches
go first, and larger batches of a candidate that is already past the bound are not measured: they only take longer.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport._progress import Progress, silent
from rexport.benchmarks.interleave import Failure, Job, measure
from rexport.model_file import load
from rexport.model_inputs import image_input, preprocessing_of
from rexport.runtimes.source import Source
from rexport.tuning.deployment_choice import Bounds, Candidate, Goal, Measured, choose, nearest, order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SearchResult", "Trial", "search_deployment"]

_FINALISTS = 4
_TOGETHER = 6  # models in memory at once
_FIRST_LOOK, _HALVINGS, _FINAL = 0.4, 0.2, 0.4  # of the time
_FIRST_CALLS = 5
_FINAL_CALLS = 64  # that MLPerf asks for before it takes a 90th percentile
_FEWEST_CALLS = 10


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate and its measurements.

    Attributes:
        candidate: The candidate.
        measured: Its last and longest measurement; ``None`` without any.
        stages: Every measurement: ``first look``, ``halving`` or ``final``, and the seconds of calls, round by round.
        reason: Why it was not measured, or not to the end, in a sentence.
    """

    candidate: Candidate
    measured: Measured | None = None
    stages: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...] = ()
    reason: str | None = None

    @property
    def is_finalist(self) -> bool:
        """Whether it was measured in the last round."""
        return any(stage == "final" for stage, _ in self.stages)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """All trials, and the one to use.

    Attributes:
        trials: In the order of the candidates.
        chosen: The best that keeps within the bounds; ``None`` if none does.
        nearest: The one that comes closest to the bounds, if none does and anything was measured.
        seconds: The time of the search.
    """

    trials: tuple[Trial, ...]
    chosen: Measured | None
    nearest: Measured | None
    seconds: float


def search_deployment(
    candidates: Sequence[Candidate],
    *,
    bounds: Bounds,
    goal: Goal = Goal.THROUGHPUT,
    seconds: float = 120.0,
    progress: Progress = silent,
) -> SearchResult:
    """Measure candidates, and find the best of them that keeps within the bounds.

    Args:
        candidates: ONNX files on runtimes.
        bounds: The bounds on the result.
        goal: The goal to optimise.
        seconds: About how long to measure. A candidate that there is no time for says so in its reason; the last round
            is always measured.
        progress: Reports candidates, and the last round.

    Raises:
        UsageError: There are no candidates, or the numbers are not above zero.
        ModelFileError: A file is not a model of images.
    """
    if not candidates:
        raise UsageError("There is nothing to measure; name at least one runtime, batch and number of threads.")
    if any(min(candidate.batch, candidate.threads) < 1 for candidate in candidates):
        raise UsageError("Batch sizes and numbers of threads must be at least 1.")
    if not 0 < seconds < math.inf:
        raise UsageError(f"The time to measure must be above 0 seconds, such as 120, not {seconds:g}.")
    if bounds.latency_ms is not None and not 0 < bounds.latency_ms < math.inf:
        raise UsageError(f"The latency bound must be above 0 ms, such as 20, not {bounds.latency_ms:g}.")
    return _Search(candidates, bounds, goal, seconds, progress).run()


@dataclass(frozen=True, kw_only=True)
class _Input:
    """A file's input: its fixed batch, if any, and the shape and the type of an image."""

    batch: int | None
    shape: tuple[int, int, int]
    dtype: str

    @classmethod
    def of(cls, path: Path) -> _Input:
        model = load(path)
        preprocessing = preprocessing_of(model, path)
        return cls(batch=image_input(model).batch, shape=preprocessing.trial_shape, dtype=preprocessing.dtype)


class _Search:
    def __init__(
        self, candidates: Sequence[Candidate], bounds: Bounds, goal: Goal, seconds: float, progress: Progress
    ) -> None:
        self._trials = {candidate: Trial(candidate=candidate) for candidate in candidates}
        paths = dict.fromkeys(candidate.variant.path for candidate in candidates)
        self._inputs = {path: _Input.of(path) for path in paths}
        self._bounds = bounds
        self._goal = goal
        self._seconds = seconds
        self._progress = progress
        self._start = monotonic()

    def run(self) -> SearchResult:
        possible = [candidate for candidate in self._trials if self._is_possible(candidate)]
        self._look_at(possible)
        alive = self._halve(order(self._measured, self._bounds, self._goal))
        best, final = None, list[Measured]()
        while alive and best is None:
            last = self._final([measured.candidate for measured in alive[:_FINALISTS]])
            final += last
            best = choose(last, self._bounds, self._goal)
            alive = self._next_best()
        closest = None
        if best is None:
            closest = nearest(final or self._measured, self._bounds)
        return SearchResult(
            trials=tuple(self._trials.values()), chosen=best, nearest=closest, seconds=monotonic() - self._start
        )

    @property
    def _measured(self) -> list[Measured]:
        return [trial.measured for trial in self._trials.values() if trial.measured is not None]

    def _is_possible(self, candidate: Candidate) -> bool:
        variant, fixed = candidate.variant, self._inputs[candidate.variant.path].batch
        if not self._bounds.allow(variant):
            drop = "an unknown share" if variant.drop_points is None else f"{variant.drop_points:.2f} points"
            reason = f"It loses {drop} of top-1 (limit {self._bounds.drop_points:g} points)."
            self._leave_out(candidate, reason)
        elif fixed not in (None, candidate.batch):
            self._leave_out(candidate, f"The file takes batches of {fixed} only; export it with `--batch dynamic`.")
        else:
            return True
        return False

    def _look_at(self, possible: Sequence[Candidate]) -> None:
        """Measure all shortly, as far as there is time and none is past the bound for sure."""
        waiting = list(possible)
        random.Random(0).shuffle(waiting)  # a drift of the machine hits no kind of candidate alone
        if self._bounds.latency_ms is not None:
            waiting.sort(key=lambda candidate: candidate.batch)
        with self._progress("a first look", len(waiting)) as advance:
            while waiting:
                hopeful = [candidate for candidate in waiting if not self._is_hopeless(candidate)]
                advance(len(waiting) - len(hopeful))
                if not hopeful:
                    break
                group = hopeful[:_TOGETHER]
                if self._bounds.latency_ms is not None:
                    group = [candidate for candidate in group if candidate.batch == group[0].batch]
                if self._measured and self._time_is_up(_FIRST_LOOK + _HALVINGS):
                    for candidate in group:
                        self._leave_out(candidate, "Time was up before it was measured; give more --seconds.")
                else:
                    self._measure("first look", group, _FIRST_LOOK * self._seconds / len(possible), _FIRST_CALLS)
                advance(len(group))
                waiting = [candidate for candidate in hopeful if candidate not in group]

    def _halve(self, alive: list[Measured]) -> list[Measured]:
        """Measure the better half again, and its better half, until there are about as many as for the last round."""
        sizes, size = list[int](), math.ceil(len(alive) / 2)
        while size > _TOGETHER:
            sizes.append(size)
            size = math.ceil(size / 2)
        for size in sizes:
            if self._time_is_up(_FIRST_LOOK + _HALVINGS):
                break
            better = [measured.candidate for measured in alive[:size]]
            seconds = _HALVINGS * self._seconds / len(sizes) / size
            with self._progress(f"the better {size}", size) as advance:
                for start in range(0, size, _TOGETHER):
                    group = better[start : start + _TOGETHER]
                    self._measure("halving", group, seconds, _FIRST_CALLS)
                    advance(len(group))
            alive = [measured for measured in self._measured if measured.candidate in better]
            alive = order(alive, self._bounds, self._goal)
        return alive

    def _final(self, finalists: list[Candidate]) -> list[Measured]:
        seconds = _FINAL * self._seconds / len(finalists)
        slowest = max(median(self._seconds_of(candidate)) for candidate in finalists)
        calls = min(_FINAL_CALLS, max(_FEWEST_CALLS, int(2 * seconds / slowest)))
        return self._measure("final", finalists, seconds, calls, progress=self._progress)

    def _next_best(self) -> list[Measured]:
        """Return the candidates that may still keep within the bounds, if there is time to measure them."""
        if self._time_is_up(1.0):
            return []
        trials = [trial for trial in self._trials.values() if not trial.is_finalist]
        bound = self._bounds.latency_ms or math.inf
        hopeful = [trial.measured for trial in trials if trial.measured and trial.measured.percentile_ms(50) <= bound]
        return order(hopeful, self._bounds, self._goal)

    def _measure(
        self, stage: str, group: Sequence[Candidate], seconds: float, calls: int, *, progress: Progress = silent
    ) -> list[Measured]:
        jobs = [self._job(candidate) for candidate in group]
        results = []
        outcomes = measure(jobs, min_seconds=seconds, min_calls=calls, progress=progress)
        for candidate, outcome in zip(group, outcomes, strict=True):
            trial = self._trials[candidate]
            if isinstance(outcome, Failure):
                self._trials[candidate] = replace(trial, measured=None, reason=outcome.reason)
                continue
            measured = Measured(candidate=candidate, rounds=outcome.rounds)
            stages = (*trial.stages, (stage, outcome.rounds))
            self._trials[candidate] = replace(trial, measured=measured, stages=stages)
            results.append(measured)
        return results

    def _job(self, candidate: Candidate) -> Job:
        images = self._inputs[candidate.variant.path]
        return Job(
            source=Source(path=candidate.variant.path),
            runtime=candidate.runtime,
            shape=(candidate.batch, *images.shape),
            dtype=images.dtype,
            threads=candidate.threads,
        )

    def _is_hopeless(self, candidate: Candidate) -> bool:
        """Return whether a smaller batch of the same already takes longer than a call may; then leave it out."""
        bound = self._bounds.latency_ms or math.inf
        for measured in self._measured:
            smaller = measured.candidate
            is_smaller = smaller.batch < candidate.batch and replace(smaller, batch=candidate.batch) == candidate
            if is_smaller and measured.percentile_ms(50) > bound:
                self._leave_out(candidate, f"Batch {smaller.batch} already takes longer than {bound:g} ms.")
                return True
        return False

    def _leave_out(self, candidate: Candidate, reason: str) -> None:
        self._trials[candidate] = replace(self._trials[candidate], reason=reason)

    def _seconds_of(self, candidate: Candidate) -> Sequence[float]:
        measured = self._trials[candidate].measured
        assert measured is not None  # a finalist was seen in the first look
        return measured.seconds

    def _time_is_up(self, share: float) -> bool:
        return monotonic() - self._start > share * self._seconds
