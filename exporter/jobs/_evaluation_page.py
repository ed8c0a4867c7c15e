"""What the page of an evaluation shows: its facts by name, and the pictures of the mistakes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rexport.calibration.image_folder import ImageFolder
from rexport.evaluation.report import Report, to_html
from rexport.evaluation.thumbnails import thumbnail
from rexport.pages import time_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.calibration import Dataset
    from rexport.evaluation.thumbnails import Thumbnail
    from rexport.jobs.evaluate import EvaluateResult
    from rexport.preprocessing import Preprocessing

__all__ = ["page_of"]


def page_of(result: EvaluateResult, preprocessing: Preprocessing, dataset: Dataset, notes: Sequence[str]) -> str:
    """Return the page of a result; it has pictures only if the data set is a folder of them."""
    request, evaluation = result.request, result.evaluation
    prepared = ""
    pictures: dict[str, Thumbnail] = {}
    if isinstance(dataset, ImageFolder):
        prepared = request.views.in_words or preprocessing.in_words()
        pictures = _pictures(result, preprocessing)
    report = Report(
        evaluation=evaluation,
        classes=[result.class_name(index) for index in range(evaluation.outputs)],
        model=Path(request.model).name,
        reference=None if result.reference is None else _name_of(result.reference, request.model),
        data=str(request.data),
        facts={"Runtime": result.runtime, "Evaluated": time_in_words(datetime.now(UTC).isoformat())},
        long_facts={
            "Model": request.model,
            "Reference": "" if result.reference is None else str(result.reference),
            "Data": str(request.data),
            "Pictures": prepared,
        },
        command=request.command,
        notes=notes,
        divergence=result.divergence,
        pictures=pictures,
    )
    return to_html(report)


def _pictures(result: EvaluateResult, preprocessing: Preprocessing) -> dict[str, Thumbnail]:
    pictures = {}
    for mistake in result.evaluation.worst:
        picture = thumbnail(Path(mistake.image), preprocessing, result.request.views)
        if picture is not None:
            pictures[mistake.image] = picture
    return pictures


def _name_of(reference: Path, model: str) -> str:
    """Return the reference's name, or its path where the model's file has the same name."""
    if reference == Path(model):
        return "the same file on cpu"
    return str(reference) if reference.name == Path(model).name else reference.name
