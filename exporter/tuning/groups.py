"""The fastest form of each grouped convolution, measured here.

Every distinct layer is timed in its forms, each in a process of its own and all in turns, and takes its fastest. Then
the whole model is timed against the original, and replaces it only if it is faster.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rexport._errors import UnavailableError, UsageError
from rexport._progress import Progress, silent
from rexport.benchmarks.interleave import Failure, Job, Timing, measure
from rexport.passes import Reference
from rexport.passes._graph import name_of
from rexport.passes.regroup import Regroup, groups_of
from rexport.passes.split_groups import SplitGroups
from rexport.runtimes.source import Source
from rexport.tuning.comparison import compare, conditions_for
from rexport.tuning.conv_layer import ENDS, grouped_layers
from rexport.tuning.group_form import AS_IT_IS, GroupForm
from rexport.tuning.timings import Conditions, Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from rexport.passes import PassReport
    from rexport.tuning.comparison import Comparison
    from rexport.tuning.conv_layer import ConvLayer

__all__ = ["LayerChoice", "RegroupResult", "regroup"]

_WIDEST = 128  # channels of a merged group; products of that size are efficient, and all the zeros are a waste
_BRANCHES = 8  # at most, each of which costs some microseconds a call by itself
_WORTH = 0.98  # of a simpler form's time: a form as fast is worth its larger weight, or its additional nodes
_LAYER_SECONDS, _LAYER_CALLS = 0.4, 30


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The form of a distinct layer.

    Attributes:
        layer: The layer in its original form.
        nodes: The names of its convolutions.
        form: The chosen form.
        seconds: The time of one call in each form.
        remembered: Whether these times are from an earlier run.
    """

    layer: ConvLayer
    nodes: tuple[str, ...]
    form: GroupForm
    seconds: Mapping[GroupForm, float]
    remembered: bool


@dataclass(frozen=True, kw_only=True)
class RegroupResult:
    """The model to use from now on.

    Attributes:
        model: The regrouped one if it is ``kept``, otherwise the original.
        kept: Whether the regrouped model is the result.
        report: How many convolutions were regrouped, and which could not be, and why.
        choices: One for each distinct layer that was measured.
        conditions: The conditions of the measurement.
        comparison: The regrouped model against the original; ``None`` if that was not measured.
    """

    model: ir.Model
    kept: bool
    report: PassReport
    choices: tuple[LayerChoice, ...] = ()
    conditions: Conditions | None = None
    comparison: Comparison | None = None


def regroup(
    model: ir.Model,
    *,
    merged: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    timings: Timings | None = None,
    verify: bool = True,
    progress: Progress = silent,
) -> RegroupResult:
    """Write the grouped convolutions of ``model``, float or quantized, in the forms that are fastest.

    Neighbouring groups merge into one, and a few wide ones may become branches of plain convolutions. The results stay
    the same: bit by bit where the convolutions multiply integers, and to rounding in floats.

    Args:
        model: With one image input; it is not changed.
        merged: How many groups become one, in all layers whose groups it divides, and nothing is measured; by default
            each layer's fastest on ONNX Runtime's CPU provider, on this machine.
        batch: Images a call, by default the model's own, or 1.
        threads: By default one per usable core.
        timings: The times of earlier runs, to read and add to.
        verify: Whether to run both models on random inputs and compare the results.
        progress: Reports each layer, and the measurement of the whole model.

    Raises:
        UsageError: The numbers are below 1, or the model has another fixed batch.
        ModelFileError: The model has no image input.
        VerificationError: The regrouped model's results differ (a defect of rexport).
    """
    if any(number is not None and number < 1 for number in (merged, batch, threads)):
        raise UsageError("The groups to merge, the batch and the threads must each be at least 1.")
    if merged is not None:
        return _rewritten(model, lambda _: GroupForm(merged=merged), verify=verify)
    conditions = conditions_for(model, batch=batch, threads=threads)
    return _regroup_as_measured(model, conditions, timings or Timings(), verify=verify, progress=progress)


def _regroup_as_measured(
    model: ir.Model, conditions: Conditions, timings: Timings, *, verify: bool, progress: Progress
) -> RegroupResult:
    layers = grouped_layers(model)
    choices = _fastest(layers, conditions, timings, progress)
    by_name = {name: choice.form for choice in choices for name in choice.nodes}
    result = _rewritten(model, lambda conv: by_name.get(name_of(conv), AS_IT_IS), verify=verify)
    result = replace(result, choices=choices, conditions=conditions)
    if not result.report.changed:
        return result
    comparison = compare(model, result.model, conditions, progress=progress)
    if not comparison.is_faster:
        result = replace(result, model=model, kept=False)
    return replace(result, comparison=comparison)


def _rewritten(model: ir.Model, form_of: Callable[[ir.Node], GroupForm], *, verify: bool) -> RegroupResult:
    """Write each grouped convolution in its form."""
    regrouped = model.clone()
    forms = {name_of(node): form_of(node) for node in regrouped.graph if groups_of(node) > 1}
    report = Regroup(lambda conv: forms[name_of(conv)].merged)(regrouped).report
    split = SplitGroups(lambda conv: forms[name_of(conv)].branches)(regrouped).report
    if not (report.changed or split.changed):
        return RegroupResult(model=model, kept=False, report=report)
    in_form = sum(form != AS_IT_IS for form in forms.values()) - len(report.refusals)
    report = replace(report, changed=in_form, refusals=(*report.refusals, *split.refusals))
    if verify:
        Reference(model).difference(regrouped)
    return RegroupResult(model=regrouped, kept=True, report=report)


def _fastest(
    layers: Mapping[ConvLayer, tuple[str, ...]], conditions: Conditions, timings: Timings, progress: Progress
) -> tuple[LayerChoice, ...]:
    choices = []
    with progress("measuring grouped convolutions", len(layers)) as advance:
        for layer, nodes in layers.items():
            forms = layer.forms(widest=_WIDEST, most_branches=_BRANCHES)
            seconds = timings.find(layer, conditions)
            remembered = set(forms) <= set(seconds)
            if not remembered:
                seconds = _seconds(layer, forms, conditions)
                timings.keep(layer, conditions, seconds)
            form = _choose(seconds)
            choices.append(LayerChoice(layer=layer, nodes=nodes, form=form, seconds=seconds, remembered=remembered))
            advance(1)
    return tuple(choices)


def _choose(seconds: Mapping[GroupForm, float]) -> GroupForm:
    """Return the fastest, or the simplest that is as fast within the noise."""
    best = min(seconds.values())
    return min(form for form, elapsed in seconds.items() if elapsed * _WORTH <= best)


def _seconds(layer: ConvLayer, forms: Sequence[GroupForm], conditions: Conditions) -> dict[GroupForm, float]:
    """Measure a layer in several forms, in turns; a form that fails is left out."""
    shape = (conditions.batch, ENDS, layer.height, layer.width)
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for form in forms:
            path = Path(folder) / f"{form}.onnx"
            path.write_bytes(layer.to_model(form))
            jobs.append(Job(source=Source(path=path), runtime="cpu", shape=shape, threads=conditions.threads))
        outcomes = measure(jobs, min_seconds=_LAYER_SECONDS, min_calls=_LAYER_CALLS)
    measured = zip(forms, outcomes, strict=True)
    times = {form: median(chain(*outcome.rounds)) for form, outcome in measured if isinstance(outcome, Timing)}
    if AS_IT_IS not in times:
        failure = next(outcome for outcome in outcomes if isinstance(outcome, Failure))
        raise UnavailableError(f"The layer {layer} can't be measured: {failure.reason}")
    return times
