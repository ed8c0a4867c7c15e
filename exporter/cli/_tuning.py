"""``--stem`` and ``--regroup``, which ``fuse`` and ``quantize`` share: what they take, do, and print."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.tuning import Comparison, Conditions, LayerChoice, RegroupResult, StemResult

__all__ = ["ForBatch", "Regrouping", "Stem", "StemChoice", "Tuned", "Tuning", "print_tuning", "tune", "tuning_json"]


class Stem(StrEnum):
    """Whether the first convolution is to read blocks of pixels."""

    MEASURE = "measure"
    OFF = "off"
    ON = "on"


Regrouping = Annotated[
    str,
    typer.Option(
        "--regroup",
        metavar="measure|off|K",
        help="Merge K neighbouring groups of each grouped convolution, or as many as are measured to be fastest here.",
    ),
]
StemChoice = Annotated[
    Stem,
    typer.Option(
        "--stem",
        help="Let a first convolution of stride 2 read 2 × 2 blocks of pixels as channels, or only if that is faster.",
    ),
]
ForBatch = Annotated[
    int | None,
    typer.Option(min=1, help="The batch size that is measured at; by default the file's, or 1.", show_default=False),
]


_WORDS = {"measure": None, "off": 1}  # of --regroup: how many groups merge


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was asked for: ``merged`` groups (``None``: as measured), the ``stem``, and what to measure at."""

    merged: int | None
    stem: Stem
    batch: int | None
    threads: int | None

    @classmethod
    def parse(cls, regroup: str, stem: Stem, *, batch: int | None, threads: int | None) -> Tuning:
        """Read ``--regroup``.

        Raises:
            UsageError: It is neither a word that it takes nor a number.
        """
        merged: int | None
        if regroup in _WORDS:
            merged = _WORDS[regroup]
        elif regroup.isdecimal() and int(regroup) > 0:
            merged = int(regroup)
        else:
            raise UsageError(f"--regroup {regroup}: choose measure, off, or a number of groups such as 4.")
        return cls(merged=merged, stem=stem, batch=batch, threads=threads)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The ``model`` to write, and what became of the stem and of the groups; ``None`` for what was not asked for."""

    model: ir.Model
    stem: StemResult | None
    regrouping: RegroupResult | None


def tune(model: ir.Model, asked: Tuning, *, verify: bool = True) -> Tuned:
    """Do what was asked for, the stem first."""
    stem, regrouping = None, None
    if asked.stem is not Stem.OFF or asked.merged != 1:
        from rexport import tuning
        from rexport.cli._console import progress

        if asked.stem is not Stem.OFF:
            stem = tuning.block_stem(
                model,
                measure=asked.stem is Stem.MEASURE,
                batch=asked.batch,
                threads=asked.threads,
                verify=verify,
                progress=progress,
            )
            model = stem.model
        if asked.merged != 1:
            regrouping = tuning.regroup(
                model,
                merged=asked.merged,
                batch=asked.batch,
                threads=asked.threads,
                verify=verify,
                progress=progress,
            )
            model = regrouping.model
    return Tuned(model=model, stem=stem, regrouping=regrouping)


def print_tuning(tuned: Tuned, *, explain: bool = False) -> None:
    """Print what was chosen for each layer, and what the whole model gained."""
    from rexport.cli._console import note, print_table

    if tuned.stem is not None:
        print(f"stem: {_stem_in_words(tuned.stem)}")
    if tuned.regrouping is None:
        return
    if tuned.regrouping.choices:
        columns = ("grouped convolution", "times", "groups", "chosen", "µs", "µs chosen", "speed-up")
        print_table(columns, [_cells(choice) for choice in tuned.regrouping.choices], left=(0,))
    print(f"regrouped: {_groups_in_words(tuned.regrouping)}")
    for refusal in tuned.regrouping.report.refusals if explain else ():
        note(f"{refusal.where} was not regrouped: {refusal.why}.")


def tuning_json(tuned: Tuned) -> dict[str, Any]:
    """Return the results as JSON objects, ``None`` for what was not asked for."""
    stem, regrouping = tuned.stem, tuned.regrouping
    return {
        "stem": stem and {"kept": stem.kept, "changed": stem.report.changed, **_measured(stem)},
        "regrouping": regrouping
        and {
            "kept": regrouping.kept,
            "changed": regrouping.report.changed,
            "refusals": [{"where": refusal.where, "why": refusal.why} for refusal in regrouping.report.refusals],
            **_measured(regrouping),
            "layers": [
                {
                    "layer": choice.layer.to_json(),
                    "nodes": list(choice.nodes),
                    "merged": choice.form.merged,
                    "branches": choice.form.branches,
                    "seconds": {str(form): seconds for form, seconds in choice.seconds.items()},
                    "remembered": choice.remembered,
                }
                for choice in regrouping.choices
            ],
        },
    }


def _measured(result: StemResult | RegroupResult) -> dict[str, Any]:
    conditions, comparison = result.conditions, result.comparison
    return {
        "speedup": comparison and comparison.speedup,
        "speedup_interval": comparison and list(comparison.interval),
        "batch": conditions and conditions.batch,
        "threads": conditions and conditions.threads,
    }


def _cells(choice: LayerChoice) -> tuple[str, ...]:
    from rexport.tuning.group_form import AS_IT_IS

    before, after = choice.seconds[AS_IT_IS], choice.seconds[choice.form]
    groups = choice.layer.groups
    chosen = f"{groups // choice.form.merged}" + " branches" * choice.form.branches
    return (
        str(choice.layer),
        str(len(choice.nodes)),
        str(groups),
        chosen,
        f"{1e6 * before:,.0f}",
        f"{1e6 * after:,.0f}",
        f"{before / after:.2f}",
    )


def _stem_in_words(result: StemResult) -> str:
    if not result.report.changed:
        refusals = result.report.refusals
        return (
            f"as it was, as {refusals[0].why}" if refusals else "as it was, as no convolution of stride 2 comes first"
        )
    if result.comparison is None or result.conditions is None:
        return "it reads 2 × 2 blocks"
    return _gain("it reads 2 × 2 blocks", result.kept, result.comparison, result.conditions)


def _groups_in_words(result: RegroupResult) -> str:
    refusals, what = result.report.refusals, f"{result.report.changed} convolutions"
    if result.conditions is None:
        return what + (f", {len(refusals)} refused ({refusals[0].why})" if refusals else "")
    if not result.choices:
        return "nothing, as there are no grouped convolutions of known size"
    if result.comparison is None:
        return "nothing, as every layer is fastest as it is"
    return _gain(what, result.kept, result.comparison, result.conditions)


def _gain(what: str, kept: bool, compared: Comparison, conditions: Conditions) -> str:
    threads = f"{conditions.threads} thread" + "s" * (conditions.threads != 1)
    where = f"at batch {conditions.batch} on {threads}"
    if kept:
        return f"{what}; the whole model is {compared} {where}"
    return f"as it was, as it is not surely faster: the whole model would be {compared} {where}"
