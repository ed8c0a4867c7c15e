"""``rexport tune``: what runs a model best here, as a profile."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._calibration import RecoverChoice
from rexport.cli._gate import EvalData
from rexport.cli._options import Json, Output, SkipBad
from rexport.cli._paths import READ, READ_IMAGES, WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport._errors import RexportError
    from rexport.cli._variants import LeftOut, Made
    from rexport.tuning import Bounds, Candidate, SearchResult

__all__ = ["tune"]


class GoalName(StrEnum):
    """The goals (see :class:`rexport.tuning.Goal`, which would load too much here)."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


def tune(
    model: Annotated[
        Path, READ, typer.Argument(metavar="MODEL.onnx", help="An ONNX file, float or INT8.", show_default=False)
    ],
    output: Output,
    goal: Annotated[
        GoalName, typer.Option(help="The most images per second, or the shortest call.")
    ] = GoalName.THROUGHPUT,
    latency_bound: Annotated[
        float | None,
        typer.Option("--latency-bound", metavar="MS", help="What nine calls of ten have to keep within, in ms."),
    ] = None,
    data: Annotated[
        Path | None,
        READ_IMAGES,
        typer.Option("--data", help="Images to make INT8 files of a float model with, as `rexport quantize` does."),
    ] = None,
    eval_data: EvalData = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", metavar="POINTS", help="The percentage points of top-1 that INT8 may lose on --eval-data."
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="Runtimes, such as cpu,openvino.", show_default="the installed ones of these two")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes.", show_default="1,2,4,8,16, and 1 for latency")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of threads.", show_default="1, 2, 4 … one per core")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32,int8", help="Precisions.", show_default="both with --data")
    ] = None,
    regroup: Annotated[
        str,
        typer.Option(metavar="off,measure", help="Grouped convolutions as they are, in the forms that are fastest."),
    ] = "off,measure",
    samples: Annotated[int, typer.Option(min=1, help="How many images of --data to use.")] = 512,
    recover: RecoverChoice = None,
    skip_bad: SkipBad = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="How long to measure, about.", show_default="5 for each candidate and 30 for the last ones"),
    ] = None,
    model_out: Annotated[
        Path | None,
        WRITE,
        typer.Option(
            "--model-out", help="Where to write the file if it had to be made.", show_default="NAME-tuned.onnx"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what runs MODEL best on this machine, and write it down as a profile.

    Runtimes, batches, numbers of threads, precisions and regrouping are measured against each other, in turns: all
    shortly, the better half again, and the last four together for longest. Between what can't be told apart, fewer
    threads, smaller batches and the file that came in win. If nothing keeps within the bounds, no profile is
    written, and the exit code is 4.
    """
    import tempfile

    from rexport._apart import require_apart
    from rexport._files import check_writable
    from rexport.benchmarks import machine_facts
    from rexport.cli import _console
    from rexport.cli._deploying import Deploying, Quantizing
    from rexport.cli._deployment_report import document, print_result
    from rexport.cli._profile import save_chosen
    from rexport.cli._variants import make_variants
    from rexport.model_file import is_size_assumed, load, picture_size
    from rexport.tuning import Bounds, Goal, search_deployment

    made_at = output.parent / f"{model.stem}-tuned.onnx" if model_out is None else model_out
    require_apart((output, made_at), (model,), images=[path for path in (data, eval_data) if path is not None])
    _check(latency_bound, max_drop, eval_data, seconds)
    check_writable(output)
    check_writable(made_at)
    machine = machine_facts()  # before this command makes it busy itself
    asked = Deploying.parse(
        model,
        goal=Goal(goal),
        on=on,
        batch=batch,
        threads=threads,
        precision=precision,
        regroup=regroup,
        quantizing=Quantizing(
            data=data, eval_data=eval_data, max_drop=max_drop, samples=samples, recover=recover, skip_bad=skip_bad
        ),
    )
    bounds = Bounds(latency_ms=latency_bound, drop_points=max_drop)
    with tempfile.TemporaryDirectory(prefix="rexport-tune-") as folder:
        original = load(model)
        if is_size_assumed(original):
            size = picture_size(original)
            _console.note(f"{model} takes pictures of any size and does not say which it is for; taking {size}×{size}.")
        made = make_variants(asked, Path(folder))
        candidates = asked.candidates(made.variants)
        _require_some(candidates, made.left_out)
        budget = 5.0 * len(candidates) + 30 if seconds is None else seconds
        _console.say(f"measuring {len(candidates)} ways to run {model}, about {budget:.0f} s")
        found = search_deployment(
            candidates, bounds=bounds, goal=Goal(goal), seconds=budget, progress=_console.progress
        )
        saved = None
        if found.chosen is not None:
            saved = save_chosen(found.chosen, output, made_at, goal=Goal(goal), bounds=bounds)
        if as_json:
            _console.print_json(document(model, goal, bounds, machine, made, found, saved))
        else:
            print_result(found, machine, made, saved, output)
    if found.chosen is None:
        raise _why_none(found, bounds, made)


def _check(latency_bound: float | None, max_drop: float | None, eval_data: Path | None, seconds: float | None) -> None:
    """Refuse numbers that make no sense before anything is loaded."""
    import math

    from rexport._errors import UsageError
    from rexport.jobs.quantize import check_gate

    if latency_bound is not None and not 0 < latency_bound < math.inf:
        raise UsageError(f"--latency-bound {latency_bound:g}: it is milliseconds above 0, such as 20.")
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"--seconds {seconds:g}: it is a number above 0, such as 120.")
    check_gate(eval_data, max_drop)


def _require_some(candidates: Sequence[Candidate], left_out: Sequence[LeftOut]) -> None:
    """Raise what the files that could not be made failed for, if there is nothing else to run."""
    from rexport._errors import GateError

    if not candidates:
        reasons = dict.fromkeys(one.reason for one in left_out)
        raise GateError(f"There is nothing left to choose from. {' '.join(reasons)}")


def _why_none(found: SearchResult, bounds: Bounds, made: Made) -> RexportError:
    """Return the error of a search that found nothing: what comes nearest, or why nothing ran."""
    from rexport._errors import GateError, UnavailableError

    near, tried = found.nearest, len(found.trials)
    if near is None or bounds.latency_ms is None:
        reasons = [trial.reason for trial in found.trials if trial.reason is not None]
        return UnavailableError(f"Nothing could be measured to the end. {reasons[0]}")
    advice = "or try --goal latency, more --threads, another runtime" + (
        "" if any(variant.precision == "int8" for variant in made.variants) else ", or INT8 with --data IMAGES"
    )
    return GateError(
        f"None of {tried} ways to run it keeps within {bounds.latency_ms:g} ms for nine calls of ten; the nearest is "
        f"{near.candidate}, which takes {near.percentile_ms(90):.2f} ms. Allow that with --latency-bound, {advice}. "
        "No profile was written."
    )
