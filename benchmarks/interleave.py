"""The measuring loop: all rows side by side, one running at a time.

A machine drifts by more than the differences that matter (clock, heat, other programs), so rows are never
measured one after the other. Each round visits every row once, in a shuffled order, for a block of calls, and the next
round in the reverse order, so that each row comes as often before another as after it; rows are compared round by
round, where the drift is the same for all. Where a process's memory comes to lie
makes its model faster or slower as long as it lives, so rows can be launched several times, each with its rounds (see
``intervals``).

The habits are hyperfine's: warm up first, at least ten calls and three seconds a row, and keep every time.
"""

from __future__ import annotations

import math
import random
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._child import Child
from rexport._progress import silent
from rexport.benchmarks.affinity import choose_cores, sibling_groups, usable_cores
from rexport.benchmarks.jobs import Failure, Interrupted, Job, Timing
from rexport.benchmarks.launch import Launch, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rexport._progress import Progress

__all__ = ["Failure", "Interrupted", "Job", "Timing", "measure"]

_ROUNDS = 20  # that the seconds asked for are spread over
_FEWEST_ROUNDS = 4  # of a launch


def measure(
    jobs: Sequence[Job],
    *,
    min_seconds: float = 3.0,
    min_calls: int = 10,
    launches: int = 1,
    timeout: float = 120.0,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Timing | Failure]:
    """Measure jobs interleaved, each in a process of its own, or in several, one after the other.

    Args:
        jobs: Rows to compare with each other; all their models are in memory at once.
        min_seconds: The least time, and
        min_calls: the fewest calls, to time per job, over all launches.
        launches: How often each job's process is started anew.
        timeout: Seconds without a reply after which a process counts as hanging, beyond what it was planned to run.
        seed: Of the order within the rounds, and of the input.
        progress: Told of processes loaded, and of blocks.

    Returns:
        For each job its times, or why it has none: a job that fails, hangs or dies leaves the others alone.

    Raises:
        Interrupted: Ctrl-C was pressed; it has the outcomes so far.
    """
    records = [Record() for _ in jobs]
    rounds = max(_FEWEST_ROUNDS, _ROUNDS // launches)
    shuffle = random.Random(seed).shuffle
    with tempfile.TemporaryDirectory() as folder, progress("measuring", launches * len(jobs) * (1 + rounds)) as advance:
        try:
            for number in range(launches):
                with _workers(jobs) as workers:
                    launch = Launch(
                        jobs=jobs,
                        workers=workers,
                        records=records,
                        seconds=min_seconds / launches,
                        calls=math.ceil(min_calls / launches),
                        rounds=rounds,
                        timeout=timeout,
                        advance=advance,
                    )
                    launch.prepare(seed, Path(folder), backwards=number % 2 == 1)
                    _run_rounds(launch, shuffle)
        except KeyboardInterrupt as error:
            _keep_pairs(records)
            raise Interrupted([record.outcome() for record in records]) from error
    return [record.outcome() for record in records]


@contextmanager
def _workers(jobs: Sequence[Job]) -> Iterator[list[Child]]:
    groups = sibling_groups(usable_cores())
    with ExitStack() as stack:
        yield [
            stack.enter_context(Child("rexport.benchmarks.worker", cores=choose_cores(job.threads, groups), rests=True))
            for job in jobs
        ]


def _run_rounds(launch: Launch, shuffle: Callable[[list[int]], None]) -> None:
    order: list[int] = []
    while not launch.is_done:
        if order:
            launch.run_round([index for index in reversed(order) if index in launch.alive])
            order = []
        else:
            order = launch.alive
            shuffle(order)
            launch.run_round(order)


def _keep_pairs(records: Sequence[Record]) -> None:
    """Leave out blocks of a round that not all jobs have."""
    complete = min((len(record.blocks) for record in records if record.failure is None), default=0)
    for record in records:
        while len(record.blocks) > complete:
            record.blocks.pop()
            record.launches[-1] -= 1
