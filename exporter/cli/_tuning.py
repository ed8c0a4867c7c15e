"""``--stem`` and ``--regroup``, which ``fuse`` and ``quantize`` share: what they take, and what is printed of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport._words import counted
from rexport.choices import Stem

if TYPE_CHECKING:
    from rexport.jobs.layer_forms import LayerForms, LayerFormsResult
    from rexport.tuning import Comparison, Conditions, LayerChoice, RegroupResult, StemResult

__all__ = ["ForBatch", "Regrouping", "Stem", "StemChoice", "parse_forms", "print_forms"]


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


def parse_forms(regroup: str, stem: Stem, *, batch: int | None, threads: int | None) -> LayerForms:
    """Read ``--regroup``, beside what else the forms of layers are chosen by.

    Raises:
        UsageError: It is neither a word that it takes nor a number.
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
    from rexport.cli._console import note, print_table

    if result.stem is not None:
        print(f"stem: {_stem_in_words(result.stem)}")
    if result.regrouping is None:
        return
    if result.regrouping.choices:
        columns = ("grouped convolution", "times", "groups", "chosen", "µs", "µs chosen", "speed-up")
        print_table(columns, [_cells(choice) for choice in result.regrouping.choices], left=(0,))
    print(f"regrouped: {_groups_in_words(result.regrouping)}")
    if explain:
        for refusal in result.regrouping.report.refusals:
            note(f"{refusal.where} was not regrouped: {refusal.why}.")


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
        reasons = (refusal.why for refusal in result.report.refusals)
        return f"as it was, as {next(reasons, 'no convolution of stride 2 comes first')}"
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
    threads = counted(conditions.threads, "thread")
    where = f"at batch {conditions.batch} on {threads}"
    if kept:
        return f"{what}; the whole model is {compared} {where}"
    return f"as it was, as it is not surely faster: the whole model would be {compared} {where}"
