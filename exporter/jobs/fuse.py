"""Fusing: the graph passes on any ONNX file, each verified against the input model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, WRITE, require_files_apart
from rexport._errors import ModelFileError, UsageError
from rexport._files import check_writable
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import in_units
from rexport.jobs.layer_forms import LayerForms, LayerFormsResult, choose_forms
from rexport.jobs.result import JobResult, Table
from rexport.model_file import load, save
from rexport.model_inputs import preprocessing_of
from rexport.passes import Reference, choose_passes, fuse
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import PictureOptions

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport.passes import PassReport
    from rexport.preprocessing import Preprocessing

__all__ = ["FuseRequest", "FuseResult", "run"]


@dataclass(frozen=True, kw_only=True)
class FuseRequest:
    """The settings of a fusion.

    Attributes:
        model: Any ONNX file.
        output: The file to write.
        only: The passes to run; by default all.
        skip: The passes to skip.
        raw_image: Whether the result takes pixels, uint8 ``[N, H, W, C]``, and normalises them itself.
        options: The mean and standard deviation for that, where the file states others or none.
        forms: The forms of layers.
        verify: Whether the result is compared with the model on random inputs.

    Raises:
        UsageError: The values do not go together.
    """

    model: Path = field(metadata=READ)
    output: Path = field(metadata=WRITE)
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    raw_image: bool = False
    options: PictureOptions = field(default_factory=PictureOptions)
    forms: LayerForms = field(default_factory=LayerForms)
    verify: bool = True

    def __post_init__(self) -> None:
        if not self.raw_image and self.options != PictureOptions():
            raise UsageError("--mean and --std say how raw images are normalised; pass --raw-image with them.")


@dataclass(frozen=True, kw_only=True, repr=False)
class FuseResult(JobResult):
    """The reports of the passes, the number of nodes, and the largest relative ``difference``; ``None`` unverified."""

    request: FuseRequest
    reports: tuple[PassReport, ...]
    forms: LayerFormsResult
    nodes_before: int
    nodes: int
    difference: float | None
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.fuse/1``."""
        return {
            "schema": "rexport.fuse/1",
            "file": str(self.request.output),
            "nodes_before": self.nodes_before,
            "nodes": self.nodes,
            "difference": self.difference,
            "passes": [report.to_json() for report in self.reports],
            **self.forms.to_json(),
        }

    def facts(self) -> dict[str, str]:
        """Return the file, its nodes, and how far its results are from the model's."""
        facts = {
            "file": f"{self.request.output}, {in_units(self.size)}",
            "nodes": f"{self.nodes_before} → {self.nodes}",
        }
        if self.difference is not None:
            facts["max relative difference"] = f"{self.difference:.1e}"
        return facts

    def as_table(self) -> Table:
        """Return the passes that changed something."""
        changed = [report for report in self.reports if report.changed]
        return Table(("pass", "changed", "what it does"), [(r.name, str(r.changed), r.summary) for r in changed])


def run(request: FuseRequest, *, progress: Progress = silent, note: Note = unsaid) -> FuseResult:
    """Run the passes, choose the forms of layers, prove the result, and write it.

    Raises:
        UsageError: There is no such pass, or the values do not fit the model.
        ModelFileError: The file can't be read, or is not valid.
        VerificationError: A change alters the results.
        OutputError: The file can't be written.
    """
    require_files_apart(request)
    check_writable(request.output)
    passes = choose_passes(only=request.only, skip=request.skip)
    original = load(request.model)
    preprocessing = None
    if request.raw_image:
        preprocessing = preprocessing_of(original, request.model, request.options, note=note)
    with progress(f"fusing {request.model.name}", None):
        reference = _reference(original, preprocessing) if request.verify else None
        result = fuse(original, passes=passes, reference=reference)
        fused = result.model
        if preprocessing is not None:
            fused = with_raw_images(fused, preprocessing)
    forms = choose_forms(fused, request.forms, verify=request.verify, progress=progress)
    difference = reference.difference(forms.model) if reference else None
    save(forms.model, request.output)
    return FuseResult(
        request=request,
        reports=result.reports,
        forms=forms,
        nodes_before=len(original.graph),
        nodes=len(forms.model.graph),
        difference=difference,
        size=request.output.stat().st_size,
    )


def _reference(original: ir.Model, preprocessing: Preprocessing | None) -> Reference:
    try:
        return Reference(original, preprocessing=preprocessing)
    except ModelFileError as error:
        raise ModelFileError(f"{error} Pass --no-verify to go without the comparison.") from error
