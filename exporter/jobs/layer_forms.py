"""The forms of layers that change no results: a stem that reads blocks of pixels, and groups that are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._progress import Progress, silent
from rexport.choices import Stem

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.tuning import RegroupResult, StemResult

__all__ = ["LayerForms", "LayerFormsResult", "choose_forms"]


@dataclass(frozen=True, kw_only=True)
class LayerForms:
    """The forms to write layers in.

    Attributes:
        merged: How many neighbouring groups of a convolution become one; ``None`` for what is measured to be fastest.
        stem: Of the first convolution.
        batch: What is measured at; by default the file's own, or 1.
        threads: Likewise; by default one per usable core.
    """

    merged: int | None = 1
    stem: Stem = Stem.OFF
    batch: int | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class LayerFormsResult:
    """The ``model`` in those forms, and what became of stem and groups; ``None`` for what was not to be changed."""

    model: ir.Model
    stem: StemResult | None = None
    regrouping: RegroupResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the keys ``stem`` and ``regrouping``."""
        stem, regrouping = self.stem, self.regrouping
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


def choose_forms(
    model: ir.Model, forms: LayerForms, *, verify: bool = True, progress: Progress = silent
) -> LayerFormsResult:
    """Write the layers of ``model`` in those forms, the stem first; with ``verify``, each change is proven.

    Raises:
        UsageError: The model insists on another batch than is to be measured at.
        VerificationError: A change alters its results.
    """
    if forms.stem is Stem.OFF and forms.merged == 1:
        return LayerFormsResult(model=model)
    from rexport import tuning

    stem, regrouping = None, None
    if forms.stem is not Stem.OFF:
        stem = tuning.block_stem(
            model,
            measure=forms.stem is Stem.MEASURE,
            batch=forms.batch,
            threads=forms.threads,
            verify=verify,
            progress=progress,
        )
        model = stem.model
    if forms.merged != 1:
        regrouping = tuning.regroup(
            model, merged=forms.merged, batch=forms.batch, threads=forms.threads, verify=verify, progress=progress
        )
        model = regrouping.model
    return LayerFormsResult(model=model, stem=stem, regrouping=regrouping)


def _measured(result: StemResult | RegroupResult) -> dict[str, Any]:
    conditions, comparison = result.conditions, result.comparison
    return {
        "speedup": comparison and comparison.speedup,
        "speedup_interval": comparison and list(comparison.interval),
        "batch": conditions and conditions.batch,
        "threads": conditions and conditions.threads,
    }
