"""Networks at random through ``quantize``, for every target and recovery: what came of each.

    python -m benchmarks.studies.random_networks --seeds 1000

A network follows from its seed. Each INT8 file is judged by means that the quantization has no part in (see
``_silent_faults``), and each network in a process of its own: a runtime that crashes takes nothing else along. The exit
code is 1 if anything crashed, or a file is wrong without a word.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.studies._random_networks import random_network
from benchmarks.studies._results import JsonFile, write_results
from benchmarks.studies._silent_faults import FAULTS, RECOVERIES, TARGETS, Judge, Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["judge_apart", "main"]

_PAIRS = tuple(product(TARGETS, RECOVERIES))


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many networks.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="The first network's seed.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per usable core.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Quantize networks at random and judge what came of them."""
    workers = workers or len(os.sched_getaffinity(0))
    judgements: list[Judgement] = []
    with ThreadPoolExecutor(workers) as pool:
        for judged in pool.map(judge_apart, range(first, first + seeds)):
            judgements += judged
            for judgement in judged:
                if judgement.verdict in FAULTS:
                    print(_in_words(judgement), flush=True)
    refused = [judgement for judgement in judgements if judgement.verdict in (Verdict.REFUSED, Verdict.UNUSABLE)]
    for judgement in refused:
        print(f"{_subject(judgement)}: {judgement.why}, plainly {judgement.plain_db:.1f} dB")
    counts = _counts(judgements)
    for target, row in counts.items():
        print(f"{target:18} " + ", ".join(f"{count} {verdict}" for verdict, count in row.items()))
    write_results(
        json_file,
        "random-networks",
        seeds=[first, first + seeds],
        counts=counts,
        faults=[_row(judgement) for judgement in judgements if judgement.verdict in FAULTS],
        refusals=[_row(judgement) for judgement in refused],
    )
    if any(judgement.verdict in FAULTS for judgement in judgements):
        raise typer.Exit(1)


def judge_apart(seed: int, pairs: Sequence[tuple[str, str]] = _PAIRS) -> list[Judgement]:
    """Judge what comes of a network for some targets and recoveries, in a process that may die.

    Where it does, each pair has another process of its own, which tells those that crash from the others.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    try:
        with ProcessPoolExecutor(1, context) as process:
            return process.submit(_judged, seed, pairs).result()
    except BrokenProcessPool:
        if len(pairs) > 1:
            return [judgement for pair in pairs for judgement in judge_apart(seed, [pair])]
        ((target, recovery),) = pairs
        reason = "The process died."
        return [Judgement(seed=seed, target=target, recovery=recovery, verdict=Verdict.CRASHED, why=reason)]


def _judged(seed: int, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
    judge = Judge(random_network(seed))
    return [judge.judge(target, recovery) for target, recovery in pairs]


def _counts(judgements: Iterable[Judgement]) -> dict[str, dict[str, int]]:
    """Count the verdicts for each target and recovery."""
    counts: dict[str, Counter[str]] = {}
    for judgement in judgements:
        counts.setdefault(f"{judgement.target} {judgement.recovery}", Counter())[str(judgement.verdict)] += 1
    return {key: dict(sorted(row.items())) for key, row in counts.items()}


def _row(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as a JSON object, without what it does not say; JSON has no infinite numbers."""
    fields = {key: value for key, value in asdict(judgement).items() if value not in (None, "")}
    return {key: str(value) if value in (math.inf, -math.inf) else value for key, value in fields.items()}


def _subject(judgement: Judgement) -> str:
    return f"seed {judgement.seed} {judgement.target} {judgement.recovery}: {judgement.verdict}"


def _in_words(judgement: Judgement) -> str:
    subject = _subject(judgement)
    if judgement.sqnr_db is None:
        return f"{subject}: {judgement.why.splitlines()[-1]}"
    return (
        f"{subject}: output {judgement.output} {judgement.sqnr_db:.1f} dB, node by node {judgement.nodes_db:.1f}, "
        f"plainly {judgement.plain_db:.1f}"
    )


if __name__ == "__main__":
    typer.run(main)
