"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Data, Json, Mean, Resize, SkipBad, Std, Threads, Weights

if TYPE_CHECKING:
    from rexport.evaluation import Evaluation
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.source import Source

__all__ = ["eval"]


def eval(  # noqa: A001
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="An ONNX file, or a network's name with --weights.", show_default=False),
    ],
    data: Data,
    weights: Weights = None,
    reference: Annotated[
        Path | None, typer.Option(help="An ONNX file to compare with, such as the float model.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    samples: Annotated[int | None, typer.Option(min=1, help="Only so many images, evenly spread.")] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure MODEL's top-1 and top-5 on labelled images, or its agreement with --reference on any.

    An ONNX file runs on ONNX Runtime's CPU provider, a network on PyTorch.
    """
    from rexport._errors import UsageError
    from rexport.calibration import open_dataset
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._options import report_skipped
    from rexport.evaluation import evaluate
    from rexport.runtimes import open_runtime
    from rexport.runtimes.source import Source

    source = Source.parse(model, weights=weights)
    if source.network and weights is None:
        raise UsageError(f"{model} without weights knows nothing; pass --weights FILE, or an ONNX file.")
    preprocessing, classes, fixed = _describe(source, resize=resize, mean=mean, std=std)
    dataset = open_dataset(data, preprocessing)
    if classes and dataset.classes and not set(dataset.classes) <= set(classes):
        note(
            f"the folders in {data} are not named as the model's classes ({classes[0]} … {classes[-1]}); taking them, "
            "sorted by name, for its outputs in order."
        )
    with ExitStack() as stack:
        runtime = stack.enter_context(open_runtime("torch" if source.network else "cpu", source, threads=threads))
        other = None
        if reference is not None:
            other = stack.enter_context(open_runtime("cpu", Source.parse(str(reference)), threads=threads))
        result = evaluate(
            runtime,
            dataset,
            classes=classes,
            reference=other,
            batch=fixed or batch,
            samples=samples,
            skip_bad=skip_bad,
            progress=progress,
        )
    report_skipped(result.skipped)
    if as_json:
        print_json(_document(model, reference, result))
    else:
        _print(model, reference, result)


def _describe(
    source: Source, *, resize: int | None, mean: str | None, std: str | None
) -> tuple[Preprocessing, tuple[str, ...], int | None]:
    """Return a model's preprocessing, the names of its outputs, and the batch it insists on."""
    from rexport.cli._options import model_preprocessing, with_overrides
    from rexport.models import registry
    from rexport.preprocessing import Preprocessing

    if source.path is None:
        network = registry.find(str(source.network))
        preprocessing = Preprocessing.default_for(network.input_size)
        classes = registry.class_names(network.dataset, network.num_classes)
        return with_overrides(preprocessing, resize=resize, mean=mean, std=std), classes, None
    from rexport.model_file import Metadata, image_input, load

    loaded = load(source.path)
    preprocessing = model_preprocessing(loaded, source.path, resize=resize, mean=mean, std=std)
    return preprocessing, Metadata.of(loaded).classes, image_input(loaded).batch


def _document(model: str, reference: Path | None, result: Evaluation) -> dict[str, object]:
    document: dict[str, object] = {
        "schema": "rexport.eval/1",
        "model": model,
        "images": result.images,
        "skipped": len(result.skipped),
        "top1": result.top1,
        "top1_interval": result.top1_interval,
        "top5": result.top5,
    }
    if result.comparison is not None:
        sqnr = result.comparison.sqnr_db
        document |= {
            "reference": str(reference),
            "reference_top1": result.comparison.reference_top1,
            "agreement": result.comparison.agreement,
            "sqnr_db": sqnr if math.isfinite(sqnr) else None,
        }
    return document


def _print(model: str, reference: Path | None, result: Evaluation) -> None:
    from rexport.cli._reports import percent

    print(f"{model} on {result.images} images")
    if result.top1 is not None and result.top1_interval is not None:
        low, high = result.top1_interval
        right = round(result.top1 * result.images)
        print(f"top-1      {percent(result.top1)}  ({right} right; 95 % interval {percent(low)} to {percent(high)})")
    if result.top5 is not None:
        print(f"top-5      {percent(result.top5)}")
    if result.comparison is not None:
        comparison = result.comparison
        print(f"agreement  {percent(comparison.agreement)} of top-1 as {reference}")
        print(f"SQNR       {comparison.sqnr_db:.1f} dB of the logits")
        if result.top1 is not None and comparison.reference_top1 is not None:
            change = 100 * (result.top1 - comparison.reference_top1)
            print(f"change     {change:+.2f} points of top-1 (the reference has {percent(comparison.reference_top1)})")
