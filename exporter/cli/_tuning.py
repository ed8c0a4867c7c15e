"""``--stem`` and ``--regroup``, which ``fuse`` and ``quantize`` share: their declarations, parsing and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport._words import counted
from rexport.choices import Stem
from rexport.cli._console import note, print_table, print_text
from rexport.cli._options import MEASURING

if TYPE_CHECKING:
    from rexport.jobs.layer_forms import LayerForms, LayerFormsResult
    from rexport.tuning import Comparison, Conditions, LayerChoice, RegroupResult, StemResult

__all__ = ["ForBatch", "Regrouping", "Stem", "StemChoice", "parse_forms", "print_forms"]


Regrouping = Annotated[
    str,
    typer.Option(
        "--regroup",
        metavar="measure|off|K",
        help="Merge K neighbouring groups of each grouped convolution, or as many as are fastest on this machine.",
        rich_help_panel=MEASURING,
    ),
]
StemChoice = Annotated[
    Stem,
    typer.Option(
        "--stem",
        help="Let a first convolution of stride 2 read 2 × 2 blocks of pixels as channels, or only if that is faster "
        "on this machine.",
        rich_help_panel=MEASURING,
    ),
]
ForBatch = Annotated[
    int | None,
    typer.Option(min=1, help="Batch size to measure at.", show_default="the file's, or 1", rich_help_panel=MEASURING),
]


_WORDS = {"measure": None, "off": 1}  # of --regroup: how many groups merge


def parse_forms(regroup: str, stem: Stem, *, batch: int | None, threads: int | None) -> LayerForms:
    """Return the forms that ``--regroup`` and the others ask for.

    Raises:
        UsageError: ``--regroup`` is neither a word that it takes nor a number.
    """
    from rexport.jobs.layer_forms import LayerForms

    merged: int | None
    if regroup in _WORDS:
        merged = _WORDS[regroup]
    elif regroup.isdecimal() and int(regroup) > 0:
        merged = int(regroup)
    else:
        raise UsageError(f"--regroup {regroup}: choose measure, off, or a number of groups such as 4.")
    return LayerForms(merged=merged, stem=stem, batch=batch, threads=threads)


def print_forms(result: LayerFormsResult, *, explain: bool = False) -> None:
    """Print what was chosen for each layer, and what the whole model gained."""
    if result.stem is not None:
        print_text(f"stem: {_stem_in_words(result.stem)}")
    if result.regrouping is None:
        return
    if result.regrouping.choices:
        columns = ("grouped convolution", "times", "groups", "now", "µs", "now µs", "speed-up")
        print_table(columns, [_cells(choice) for choice in result.regrouping.choices], left=(0,))
    print_text(f"regrouped: {_groups_in_words(result.regrouping)}")
    if explain:
        for refusal in result.regrouping.report.refusals:
            note(f"{refusal.where} was not regrouped: {refusal.why}.")


def _cells(choice: LayerChoice) -> tuple[str, ...]:
    from rexport.tuning.group_form import AS_IT_IS

    before, after = choice.seconds[AS_IT_IS], choice.seconds[choice.form]
    groups = choice.layer.groups
    chosen = f"{groups // choice.form.merged}"
    if choice.form.branches:
        chosen += " branches"
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
        reasons = (refusal.why for refusal in result.report.refusals)
        return f"unchanged: {next(reasons, 'no convolution of stride 2 comes first')}"
    if result.comparison is None or result.conditions is None:
        return "it reads 2 × 2 blocks"
    return _gain("it reads 2 × 2 blocks", result.kept, result.comparison, result.conditions)


def _groups_in_words(result: RegroupResult) -> str:
    refusals, convolutions = result.report.refusals, counted(result.report.changed, "convolution")
    if result.conditions is None:
        refused = f", {len(refusals)} refused ({refusals[0].why})" if refusals else ""
        return convolutions + refused
    if not result.choices:
        return "nothing: no grouped convolutions of known size"
    if result.comparison is None:
        return "nothing: every layer is already in its fastest form"
    return _gain(convolutions, result.kept, result.comparison, result.conditions)


def _gain(change: str, kept: bool, compared: Comparison, conditions: Conditions) -> str:
    threads = counted(conditions.threads, "thread")
    where = f"at batch {conditions.batch} on {threads}"
    if kept:
        return f"{change}; the whole model is {compared} {where}"
    return f"unchanged: no significant gain, the whole model would be {compared} {where}"
