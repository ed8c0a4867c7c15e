"""Looking for the best way to run a model here: files × runtimes × batches × threads, under bounds, in bounded time.

Successive halving (Karnin, Koren, Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits"): all candidates are
measured shortly, the better half again, each as much longer as there are fewer, until few are left. The best four are
measured together, in turns and for longest, and one of them is chosen (see ``deployment_choice``). Of the time, 40 %
goes to the first look, 20 % to the halvings, and 40 % to the last round.

A first look goes in groups, as all models of a group are in memory at once. Where there is a bound on latency, smaller
batches go first, and larger ones of what is past the bound already are not measured: no larger batch takes less time.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

from rexport import model_file
from rexport._errors import UsageError
from rexport._progress import Progress, silent
from rexport.benchmarks.interleave import Failure, Job, measure
from rexport.preprocessing import Takes
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
_CAMERA = (480, 640)  # pixels of the pictures for a file that resizes them itself: VGA


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of a candidate.

    Attributes:
        candidate: What was to be measured.
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
    """All that was tried, and the one to use.

    Attributes:
        trials: In the order in which the candidates came.
        chosen: The best that keeps within the bounds; ``None`` if none does.
        nearest: The one that comes closest to the bounds, if none does and anything was measured.
        seconds: How long it took.
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
        bounds: What the result has to keep within.
        goal: What it is to be the best at.
        seconds: How long to measure, about. What there is no time for has a reason that says so; the last round is
            always measured.
        progress: Told of candidates, and of the last round.

    Raises:
        UsageError: There are no candidates, or the numbers are not above zero.
        ModelFileError: A file is not a model of images.
    """
    if not candidates:
        raise UsageError("There is nothing to measure; name at least one runtime, batch and number of threads.")
    if any(min(one.batch, one.threads) < 1 for one in candidates):
        raise UsageError("A batch and the threads are 1 or more.")
    if not 0 < seconds < math.inf:
        raise UsageError(f"Measuring for {seconds:g} seconds makes no sense; name a number above 0, such as 120.")
    if bounds.latency_ms is not None and not 0 < bounds.latency_ms < math.inf:
        raise UsageError(f"A call can't be bound to {bounds.latency_ms:g} ms; name a number above 0, such as 20.")
    return _Search(candidates, bounds, goal, seconds, progress).run()


@dataclass(frozen=True, kw_only=True)
class _Input:
    """What a file takes: a batch that it insists on, and the shape of an image, of raw pixels or normalised."""

    batch: int | None
    shape: tuple[int, int, int]
    raw: bool

    @classmethod
    def of(cls, path: Path) -> _Input:
        model = model_file.load(path)
        image, size = model_file.image_input(model, path), model_file.picture_size(model)
        if not image.raw:
            return cls(batch=image.batch, shape=(3, size, size), raw=False)
        stated = model_file.Metadata.of(model).preprocessing
        whole = stated is not None and stated.takes is Takes.PICTURES
        return cls(batch=image.batch, shape=(*(_CAMERA if whole else (size, size)), 3), raw=True)


class _Search:
    def __init__(
        self, candidates: Sequence[Candidate], bounds: Bounds, goal: Goal, seconds: float, progress: Progress
    ) -> None:
        self._trials = {one: Trial(candidate=one) for one in candidates}
        self._inputs = {path: _Input.of(path) for path in dict.fromkeys(one.variant.path for one in candidates)}
        self._bounds = bounds
        self._goal = goal
        self._seconds = seconds
        self._progress = progress
        self._start = monotonic()

    def run(self) -> SearchResult:
        possible = [one for one in self._trials if self._is_possible(one)]
        self._look_at(possible)
        alive = self._halve(order(self._measured, self._bounds, self._goal))
        chosen, final = None, list[Measured]()
        while alive and chosen is None:
            last = self._final([one.candidate for one in alive[:_FINALISTS]])
            final += last
            chosen = choose(last, self._bounds, self._goal)
            alive = self._next_best()
        return SearchResult(
            trials=tuple(self._trials.values()),
            chosen=chosen,
            nearest=nearest(final or self._measured, self._bounds)
            if chosen is None and (final or self._measured)
            else None,
            seconds=monotonic() - self._start,
        )

    @property
    def _measured(self) -> list[Measured]:
        return [trial.measured for trial in self._trials.values() if trial.measured is not None]

    def _is_possible(self, one: Candidate) -> bool:
        variant, fixed = one.variant, self._inputs[one.variant.path].batch
        if not self._bounds.allow(variant):
            lost = "an unknown share" if variant.drop_points is None else f"{variant.drop_points:.2f} points"
            self._leave_out(one, f"It loses {lost} of top-1, and {self._bounds.drop_points:g} points are allowed.")
        elif fixed not in (None, one.batch):
            self._leave_out(one, f"The file takes batches of {fixed} only; export it with `--batch dynamic`.")
        else:
            return True
        return False

    def _look_at(self, possible: Sequence[Candidate]) -> None:
        """Measure all shortly, as far as there is time and none is past the bound for sure."""
        mixed = list(possible)
        random.Random(0).shuffle(mixed)  # a drift of the machine hits no kind of candidate alone
        if self._bounds.latency_ms is not None:
            mixed.sort(key=lambda one: one.batch)
        with self._progress("a first look", len(mixed)) as advance:
            while mixed:
                group = [one for one in mixed if not self._is_hopeless(one)]
                advance(len(mixed) - len(group))
                if not group:
                    break
                if self._bounds.latency_ms is not None:
                    group = [one for one in group if one.batch == group[0].batch]
                group, before = group[:_TOGETHER], mixed
                if self._measured and self._time_is_up(_FIRST_LOOK + _HALVINGS):
                    for one in group:
                        self._leave_out(one, "Time was up before it was measured; give more --seconds.")
                else:
                    self._measure("first look", group, _FIRST_LOOK * self._seconds / len(possible), _FIRST_CALLS)
                advance(len(group))
                mixed = [one for one in before if one not in group and self._trials[one].reason is None]

    def _halve(self, alive: list[Measured]) -> list[Measured]:
        """Measure the better half again, and its better half, until there are about as many as for the last round."""
        sizes, size = list[int](), math.ceil(len(alive) / 2)
        while size > _TOGETHER:
            sizes.append(size)
            size = math.ceil(size / 2)
        for size in sizes:
            if self._time_is_up(_FIRST_LOOK + _HALVINGS):
                break
            again = [one.candidate for one in alive[:size]]
            each = _HALVINGS * self._seconds / len(sizes) / size
            with self._progress(f"the better {size}", size) as advance:
                for start in range(0, size, _TOGETHER):
                    group = again[start : start + _TOGETHER]
                    self._measure("halving", group, each, _FIRST_CALLS)
                    advance(len(group))
            alive = order([one for one in self._measured if one.candidate in again], self._bounds, self._goal)
        return alive

    def _final(self, finalists: list[Candidate]) -> list[Measured]:
        each = _FINAL * self._seconds / len(finalists)
        slowest = max(median(self._seconds_of(one)) for one in finalists)
        calls = min(_FINAL_CALLS, max(_FEWEST_CALLS, int(2 * each / slowest)))
        return self._measure("final", finalists, each, calls, progress=self._progress)

    def _next_best(self) -> list[Measured]:
        """Return what may still keep within the bounds, if there is time to see."""
        if self._time_is_up(1.0):
            return []
        left = [trial.measured for trial in self._trials.values() if trial.measured and not trial.is_finalist]
        bound = self._bounds.latency_ms or math.inf
        return order([one for one in left if one.percentile_ms(50) <= bound], self._bounds, self._goal)

    def _measure(
        self, stage: str, group: Sequence[Candidate], seconds: float, calls: int, *, progress: Progress = silent
    ) -> list[Measured]:
        jobs = [self._job(one) for one in group]
        done = []
        outcomes = measure(jobs, min_seconds=seconds, min_calls=calls, progress=progress)
        for one, outcome in zip(group, outcomes, strict=True):
            trial = self._trials[one]
            if isinstance(outcome, Failure):
                self._trials[one] = replace(trial, measured=None, reason=outcome.reason)
                continue
            measured = Measured(candidate=one, rounds=outcome.rounds)
            self._trials[one] = replace(trial, measured=measured, stages=(*trial.stages, (stage, outcome.rounds)))
            done.append(measured)
        return done

    def _job(self, one: Candidate) -> Job:
        takes = self._inputs[one.variant.path]
        return Job(
            source=Source(path=one.variant.path),
            runtime=one.runtime,
            shape=(one.batch, *takes.shape),
            dtype="uint8" if takes.raw else "float32",
            threads=one.threads,
        )

    def _is_hopeless(self, one: Candidate) -> bool:
        """Say, and note, whether a smaller batch of the same takes longer than is allowed for a call already."""
        if self._bounds.latency_ms is None:
            return False
        for other in self._measured:
            smaller = other.candidate
            if (smaller.variant, smaller.runtime, smaller.threads) == (one.variant, one.runtime, one.threads) and (
                smaller.batch < one.batch and other.percentile_ms(50) > self._bounds.latency_ms
            ):
                self._leave_out(one, f"Batch {smaller.batch} takes longer than {self._bounds.latency_ms:g} ms already.")
                return True
        return False

    def _leave_out(self, one: Candidate, reason: str) -> None:
        self._trials[one] = replace(self._trials[one], reason=reason)

    def _seconds_of(self, one: Candidate) -> Sequence[float]:
        measured = self._trials[one].measured
        assert measured is not None  # a finalist was seen in the first look
        return measured.seconds

    def _time_is_up(self, share: float) -> bool:
        return monotonic() - self._start > share * self._seconds
