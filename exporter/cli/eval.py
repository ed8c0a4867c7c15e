"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Data, Json, Mean, Resize, SkipBad, Std, Threads, Weights

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import Views
    from rexport.evaluation import Evaluation
    from rexport.evaluation.scores import Prepare
    from rexport.model_file import Head
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
    crops: Annotated[
        int,
        typer.Option(metavar="1|10", help="10 averages over the corners, the middle, and their mirror images."),
    ] = 1,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS,...",
            help="Average over whole pictures, resized to these lengths of the shorter side: the ResNet paper takes "
            "224,256,384,480,640.",
            show_default=False,
        ),
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

    An ONNX file runs on ONNX Runtime's CPU provider, a network on PyTorch. Several crops or scales of a picture give
    the average of their class probabilities.
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
    views = _views(crops, scales, resize)
    described = _describe(source, views, resize=resize, mean=mean, std=std)
    views.require(described.preprocessing)
    ours = described.preprocessing
    theirs, reference_head = _describe_reference(reference, views, ours)
    classes = described.classes
    shown = max(ours, theirs, key=lambda one: len(one.takes.in_graph))  # the other can be made of it
    dataset = open_dataset(data, shown)
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
            views=views,
            head=described.head,
            reference_head=reference_head,
            prepare=_prepare(shown, ours),
            reference_prepare=_prepare(shown, theirs),
            batch=described.batch or batch,
            samples=samples,
            skip_bad=skip_bad,
            progress=progress,
        )
    report_skipped(result.skipped)
    if as_json:
        print_json(_document(model, reference, views, result))
    else:
        _print(model, reference, views, result)


@dataclass(frozen=True, kw_only=True)
class _Described:
    """What is known of a model without running it; ``batch`` is what it insists on."""

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    batch: int | None
    head: Head


def _views(crops: int, scales: str | None, resize: int | None) -> Views:
    from rexport._errors import UsageError
    from rexport.calibration import CenterCrop, TenCrops, WholePictures

    if crops not in (1, 10):
        raise UsageError(f"--crops {crops}: choose 1, the middle, or 10.")
    if scales is None:
        return CenterCrop() if crops == 1 else TenCrops()
    if crops != 1 or resize is not None:
        other = "--crops 10" if crops != 1 else "--resize"
        raise UsageError(f"--scales takes whole pictures and says how large, so {other} means nothing with it.")
    try:
        return WholePictures(tuple(int(part) for part in scales.split(",")))
    except ValueError:
        raise UsageError(f"--scales takes lengths in pixels such as 224,256,384, not {scales!r}.") from None


def _describe(source: Source, views: Views, *, resize: int | None, mean: str | None, std: str | None) -> _Described:
    from rexport.cli._options import model_preprocessing, with_overrides
    from rexport.model_file import Head, Metadata, image_input, load
    from rexport.models import class_names, registry, stored_classes
    from rexport.preprocessing import Preprocessing

    if source.path is None:
        network = registry.find(str(source.network))
        preprocessing = Preprocessing.default_for(network.input_size)
        return _Described(
            preprocessing=with_overrides(preprocessing, resize=resize, mean=mean, std=std),
            classes=stored_classes(source.weights) or class_names(network.dataset, network.num_classes),
            batch=None,
            head=Head.SOFTMAX if network.members else Head.LOGITS,
        )
    loaded = load(source.path)
    _require_classifier(loaded, source.path, views)
    metadata = Metadata.of(loaded)
    return _Described(
        preprocessing=model_preprocessing(loaded, source.path, resize=resize, mean=mean, std=std),
        classes=metadata.classes,
        batch=image_input(loaded).batch,
        head=metadata.head,
    )


def _describe_reference(
    reference: Path | None, views: Views, preprocessing: Preprocessing
) -> tuple[Preprocessing, Head]:
    """Return the model's ``preprocessing`` with what the reference takes of it, and what the reference gives."""
    from rexport.model_file import Head, Metadata, image_input, load
    from rexport.preprocessing import Takes
    from rexport.runtimes.source import Source

    path = None if reference is None else Source.parse(str(reference)).path
    if path is None:
        return preprocessing, Head.LOGITS
    loaded = load(path)
    _require_classifier(loaded, path, views)
    stated = Metadata.of(loaded).preprocessing
    takes = stated.takes if stated else Takes.PIXELS if image_input(loaded).raw else Takes.NORMALISED
    return replace(preprocessing, takes=takes), Metadata.of(loaded).head


def _prepare(shown: Preprocessing, wanted: Preprocessing) -> Prepare | None:
    """Return what makes the images of a data set that was opened with ``shown`` those that are ``wanted``."""
    from rexport.preprocessing import Takes

    if shown == wanted:
        return None
    return wanted.of_pictures if shown.takes is Takes.PICTURES else wanted.to_input


def _require_classifier(model: ir.Model, path: Path, views: Views) -> None:
    from rexport._errors import ModelFileError
    from rexport.calibration import WholePictures
    from rexport.model_file import Metadata, image_input

    size, features = image_input(model, path).size, Metadata.of(model).features
    if features:
        raise ModelFileError(
            f"{path} is no classifier: it gives the features {', '.join(features)}. Export the network without "
            "--features to evaluate it."
        )
    if isinstance(views, WholePictures) and size is not None:
        raise ModelFileError(
            f"{path} takes pictures of {size}×{size} only, and --scales needs a file for any size; export the network "
            "with --any-size."
        )


def _document(model: str, reference: Path | None, views: Views, result: Evaluation) -> dict[str, object]:
    from rexport.calibration import WholePictures

    scales = views.scales if isinstance(views, WholePictures) else None
    document: dict[str, object] = {
        "schema": "rexport.eval/1",
        "model": model,
        "images": result.images,
        "crops": None if scales else views.count,
        "scales": scales,
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
            "scores": result.comparison.scores,
            "sqnr_db": sqnr if math.isfinite(sqnr) else None,
        }
    return document


def _print(model: str, reference: Path | None, views: Views, result: Evaluation) -> None:
    from rexport.cli._reports import percent

    print(f"{model} on {result.images} images{_in_words(views)}")
    if result.top1 is not None and result.top1_interval is not None:
        low, high = result.top1_interval
        right = round(result.top1 * result.images)
        print(f"top-1      {percent(result.top1)}  ({right} right; 95 % interval {percent(low)} to {percent(high)})")
    if result.top5 is not None:
        print(f"top-5      {percent(result.top5)}")
    if result.comparison is not None:
        comparison = result.comparison
        print(f"agreement  {percent(comparison.agreement)} of top-1 as {reference}")
        print(f"SQNR       {comparison.sqnr_db:.1f} dB of the {comparison.scores}")
        if result.top1 is not None and comparison.reference_top1 is not None:
            change = 100 * (result.top1 - comparison.reference_top1)
            print(f"change     {change:+.2f} points of top-1 (the reference has {percent(comparison.reference_top1)})")


def _in_words(views: Views) -> str:
    from rexport.calibration import TenCrops, WholePictures

    if isinstance(views, WholePictures):
        return f", whole, their shorter sides of {', '.join(map(str, views.scales))} pixels"
    return ", ten crops of each" if isinstance(views, TenCrops) else ""
