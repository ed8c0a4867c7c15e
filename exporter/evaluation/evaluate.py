"""Top-1 and top-5 accuracy of a loaded model over a data set, and how closely it follows a second one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._progress import Progress, silent
from rexport.calibration import CenterCrop, Views
from rexport.evaluation.judge import Judge, compared_scores, require_something_to_measure
from rexport.evaluation.result import Evaluation
from rexport.evaluation.scores import Classifier, Prepare
from rexport.model_file import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.calibration import Dataset
    from rexport.runtimes import Runtime

__all__ = ["evaluate"]

_MIDDLE = CenterCrop()


def evaluate(
    runtime: Runtime,
    dataset: Dataset,
    *,
    classes: Sequence[str] = (),
    reference: Runtime | None = None,
    views: Views = _MIDDLE,
    head: Head = Head.LOGITS,
    reference_head: Head = Head.LOGITS,
    prepare: Prepare | None = None,
    reference_prepare: Prepare | None = None,
    batch: int = 32,
    samples: int | None = None,
    skip_bad: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Run ``dataset`` through ``runtime``, and through ``reference`` too if there is one.

    Args:
        runtime: The model.
        dataset: Its images; without labels only a comparison with ``reference`` is possible.
        classes: The names of the model's outputs, in order, by which class folders are matched to them. Without
            names, the sorted folders are the outputs, and there must be as many of both.
        reference: Another model on the same images.
        views: What the models are shown of a picture; the scores of several views are averaged.
        head: What ``runtime`` gives; probabilities are averaged as they are, of logits it is the softmax.
        reference_head: What ``reference`` gives. If one gives probabilities, they are what is compared.
        prepare: What makes the images of ``dataset`` the input of ``runtime``, such as
            :meth:`Preprocessing.to_input <rexport.Preprocessing.to_input>` of pixels; by default they are it.
        reference_prepare: Likewise for ``reference``.
        batch: Images, or views of them, at a time.
        samples: Only so many images, evenly spread.
        skip_bad: Go on without images that can't be read.
        progress: Told of every batch.

    Raises:
        UsageError: There are neither labels nor a reference, or no such views.
        DataError: The folders do not fit the outputs, or images can't be read.
        ModelFileError: A model is no classifier, or gives scores that are not finite.
    """
    require_something_to_measure(dataset, compares=reference is not None)
    compared = compared_scores(views, {head} if reference is None else {head, reference_head})
    probabilities = compared == "probabilities"
    other = None
    if reference is not None:
        other = Classifier(
            runtime=reference, head=reference_head, probabilities=probabilities, prepare=reference_prepare
        )
    judge = Judge(
        model=Classifier(runtime=runtime, head=head, probabilities=probabilities, prepare=prepare),
        reference=other,
        classes=classes,
        views=views,
        batch=batch,
    )
    total = len(dataset) if samples is None else min(samples, len(dataset))
    with progress("evaluating", total) as advance:
        verdict = judge.judge(dataset, samples=samples, skip_bad=skip_bad, advance=advance)
    return Evaluation.of(
        verdict.counts,
        classes=verdict.outputs,
        labelled=dataset.labelled,
        compared=None if reference is None else compared,
        skipped=verdict.skipped,
    )
