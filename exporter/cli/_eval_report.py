"""What ``rexport eval`` prints of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._words import percent
from rexport.cli._console import note, print_facts, print_table, print_text

if TYPE_CHECKING:
    from rexport.evaluation import DivergenceReport
    from rexport.jobs.evaluate import EvaluateResult
    from rexport.jobs.evaluate_outputs import OutputsResult

__all__ = ["print_evaluation", "print_outputs"]

_AGREEING = 0.9  # a share of images below which a model is hardly the reference's, quantized
_CONFUSIONS = 10


def print_outputs(result: OutputsResult) -> None:
    """Print the accuracy or the metric, how each output compares with the reference's, and the first that differs."""
    request = result.request
    print(f"{request.model} on {result.examples} examples")
    print_facts(list(result.facts().items()))
    outputs = result.as_table()
    if outputs is not None:
        print_table(*outputs)
    if result.divergence is not None:
        _print_divergence(result.divergence, f"{request.model} on {result.runtime} differs from {request.reference}")


def print_evaluation(result: EvaluateResult) -> None:
    """Print accuracy, agreement with the reference, classes and mistakes, and the first layer that differs."""
    evaluation, comparison, model = result.evaluation, result.evaluation.comparison, result.request.model
    shown = ", ".join(filter(None, (f"{evaluation.images} images", result.request.views.in_words)))
    print(f"{model} on {shown}")
    facts = result.facts()
    if facts:
        print_facts(list(facts.items()))
    if result.request.per_class:
        _print_classes(result)
    if result.worst:
        _print_mistakes(result)
    if result.divergence is not None:
        _print_divergence(result.divergence, f"{model} on {result.runtime} differs from {result.reference}")
    elif comparison is not None and comparison.agreement < _AGREEING:
        note("the models agree on few images; --find-divergence names the first layer that differs.")


def _print_classes(result: EvaluateResult) -> None:
    """Print the accuracy of each class, the worst first, and the confusions, the most frequent first."""
    evaluation, classes = result.evaluation, result.as_table()
    assert classes is not None
    print()
    print_table(*classes, title="accuracy by class")
    if evaluation.confused_pairs:
        rows = [
            [str(pair.images), result.class_name(pair.label), result.class_name(pair.prediction)]
            for pair in evaluation.confused_pairs[:_CONFUSIONS]
        ]
        print()
        print_table(["images", "class", "predicted"], rows, left=(1, 2), title="most frequent confusions")


def _print_mistakes(result: EvaluateResult) -> None:
    rows = [
        [
            percent(mistake.probability, 1),
            result.class_name(mistake.label),
            result.class_name(mistake.prediction),
            mistake.image,
        ]
        for mistake in result.worst
    ]
    print()
    print_table(["probability", "class", "predicted", "image"], rows, left=(1, 2, 3), title="most confident mistakes")


def _print_divergence(report: DivergenceReport, compared: str) -> None:
    """Print the tensors that were compared, and the first layer that differs."""
    print()
    rows = [
        [
            row.tensor,
            f"{row.node} ({row.op_type})",
            f"{row.difference.sqnr_db:.1f} dB",
            row.difference.largest_in_words,
            "differs" if row.diverges else "",
        ]
        for row in report.rows
    ]
    print_table(["tensor", "node", "SQNR", "max difference", ""], rows, left=(0, 1, 4))
    limit = f"limit for {report.arithmetic}: {report.arithmetic.limit_in_words} per layer"
    print_text(f"{len(report.rows)} of {report.tensors} tensors compared; {limit}.")
    print_text(str(report.first or f"No layer of {compared} by more than that."))
