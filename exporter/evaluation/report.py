"""An evaluation as one HTML file (see :mod:`rexport.pages.page`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rexport._words import NONE, percent
from rexport.evaluation.result import Comparison, Evaluation, wilson_interval
from rexport.pages import render, require_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rexport.evaluation.divergence import DivergenceReport
    from rexport.evaluation.thumbnails import Thumbnail

__all__ = ["Report", "to_html"]

_CLASSES, _PAIRS = 20, 10  # that are listed, the worst first


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page shows.

    Attributes:
        evaluation: The evaluation.
        classes: The names of all outputs, in order.
        model: The model in a few words, such as its file's name.
        reference: Likewise, what it was compared with, if anything.
        data: The data set's folder or file.
        facts: Other facts in a few words, by name.
        long_facts: Those that take a line.
        command: The command line, if there was one.
        notes: Sentences on what to know of the result.
        divergence: The first layer that differs, if that was searched.
        pictures: The pictures of mistakes, by the names of their images.
    """

    evaluation: Evaluation
    classes: Sequence[str]
    model: str
    reference: str | None = None
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    long_facts: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    notes: Sequence[str] = ()
    divergence: DivergenceReport | None = None
    pictures: Mapping[str, Thumbnail] = field(default_factory=dict)

    @property
    def findings(self) -> tuple[str, ...]:
        """The result in sentences: accuracy, agreement with the reference, and the first layer that differs."""
        evaluation, comparison = self.evaluation, self.evaluation.comparison
        sentences: list[str] = []
        if evaluation.top1 is not None and evaluation.top1_interval is not None:
            low, high = map(percent, evaluation.top1_interval)
            right = round(evaluation.top1 * evaluation.images)
            accuracy = f"{percent(evaluation.top1)} (95 % interval {low} to {high})"
            change = self._change(evaluation.top1, comparison)
            sentences.append(
                f"{self.model} gets {right:,} of {evaluation.images:,} images right: top-1 is {accuracy}{change}."
            )
        if comparison is not None:
            sentences.append(
                f"It agrees with {self.reference} on {percent(comparison.agreement)} of the images; "
                f"the SQNR of its {comparison.scores} is {_decibels(comparison.sqnr_db)}."
            )
        if self.divergence is not None:
            sentences.append(str(self.divergence.first or "No layer differs by more than its arithmetic explains."))
        return tuple(sentences)

    def _change(self, top1: float, comparison: Comparison | None) -> str:
        if comparison is None or comparison.reference_top1 is None:
            return ""
        change = 100 * (top1 - comparison.reference_top1)
        if change == 0:
            return f", the same as that of {self.reference}"
        more = "more" if change > 0 else "less"
        return f", {abs(change):.2f} points {more} than that of {self.reference} ({percent(comparison.reference_top1)})"


def to_html(report: Report) -> str:
    """Return the page.

    Raises:
        UnavailableError: Jinja, which fills the page, or Matplotlib, which draws, is not installed.
    """
    require_extra()
    from rexport.evaluation.confusion_chart import classes_to_draw, confusion_chart

    evaluation, comparison = report.evaluation, report.evaluation.comparison
    facts = {"Images": f"{evaluation.images:,}"}
    if evaluation.top5 is not None:
        facts["Top-5"] = percent(evaluation.top5)
    if comparison is not None:
        facts |= {"Agreement": percent(comparison.agreement), "SQNR": _decibels(comparison.sqnr_db)}
    drawn = () if evaluation.top1 is None else classes_to_draw(evaluation)
    matrix = confusion_chart(evaluation, drawn, report.classes) if drawn else None
    return render(
        "rexport.evaluation/report.html",
        title=f"Evaluation of {report.model}",
        heading="Evaluation",
        findings=report.findings,
        facts={**facts, **report.facts},
        long_facts=report.long_facts,
        command=report.command,
        filters={"percent": percent, "decibels": _decibels},
        report=report,
        evaluation=evaluation,
        drawn=drawn,
        matrix=matrix,
        most_classes=_CLASSES,
        most_pairs=_PAIRS,
        interval=_interval,
    )


def _interval(right: int, images: int) -> str:
    low, high = wilson_interval(right, images)
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def _decibels(ratio: float) -> str:
    if math.isnan(ratio):
        return NONE
    if math.isinf(ratio):
        return "∞ (equal to the last bit)" if ratio > 0 else "−∞ (not finite)"
    return f"{ratio:.1f} dB"
