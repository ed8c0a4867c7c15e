"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._calibration import Address, EngineChoice, Where, Workers
from rexport.cli._options import Data, Json, Mean, Resize, SkipBad, Std, Threads, Weights

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import Views
    from rexport.calibration.engines import Engine
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
    engine: EngineChoice = Where.LOCAL,
    workers: Workers = None,
    address: Address = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure MODEL's top-1 and top-5 on labelled images, or its agreement with --reference on any.

    An ONNX file runs on ONNX Runtime's CPU provider, a network on PyTorch. Several crops or scales of a picture give
    the average of their class probabilities. Whoever runs the images of a file, the result is the same.
    """
    from rexport._errors import UsageError
    from rexport.cli._console import print_json
    from rexport.cli._options import report_skipped
    from rexport.runtimes.source import Source

    source = Source.parse(model, weights=weights)
    if source.network and weights is None:
        raise UsageError(f"{model} without weights knows nothing; pass --weights FILE, or an ONNX file.")
    chosen = _engine(source, engine, workers=workers, threads=threads, address=address)
    views = _views(crops, scales, resize)
    described = _describe(source, views, resize=resize, mean=mean, std=std)
    views.require(described.preprocessing)
    result = _run(
        source,
        data.absolute() if engine is Where.RAY else data,  # its workers have other working directories
        None if reference is None else Source.parse(str(reference)),
        described,
        views=views,
        batch=described.batch or batch,
        samples=samples,
        skip_bad=skip_bad,
        engine=chosen,
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


def _engine(source: Source, where: Where, *, workers: int | None, threads: int | None, address: str | None) -> Engine:
    from rexport._errors import UsageError
    from rexport.calibration.engines import EngineName, choose_engine

    if source.path is None and where is not Where.LOCAL:
        raise UsageError(
            f"--engine {where} runs ONNX files, and {source} is a network of PyTorch; export it with `rexport onnx`, "
            "or leave --engine out."
        )
    return choose_engine(EngineName(where), workers=workers, threads=threads, address=address)


def _run(
    source: Source,
    data: Path,
    reference: Source | None,
    described: _Described,
    *,
    views: Views,
    batch: int,
    samples: int | None,
    skip_bad: bool,
    engine: Engine,
) -> Evaluation:
    """Run a file with the engine, a network in this process."""
    from rexport.calibration import open_dataset
    from rexport.cli._console import note, progress
    from rexport.evaluation import ClassifierFile, evaluate, evaluate_file
    from rexport.runtimes import open_runtime

    ours, classes = described.preprocessing, described.classes
    theirs, reference_head = _describe_reference(reference, views, ours)
    shown = max(ours, theirs, key=lambda one: len(one.takes.in_graph))  # the other can be made of it
    dataset = open_dataset(data, shown)
    if classes and dataset.classes and not set(dataset.classes) <= set(classes):
        note(
            f"the folders in {data} are not named as the model's classes ({classes[0]} … {classes[-1]}); taking them, "
            "sorted by name, for its outputs in order."
        )
    prepare, reference_prepare = _prepare(shown, ours), _prepare(shown, theirs)
    if source.path is not None:
        other = None
        if reference is not None and reference.path is not None:
            other = ClassifierFile(path=reference.path.absolute(), head=reference_head, prepare=reference_prepare)
        return evaluate_file(
            ClassifierFile(path=source.path.absolute(), head=described.head, prepare=prepare),
            dataset,
            classes=classes,
            reference=other,
            views=views,
            batch=batch,
            samples=samples,
            skip_bad=skip_bad,
            engine=engine,
            progress=progress,
        )
    with ExitStack() as stack:
        runtime = stack.enter_context(open_runtime("torch", source, threads=engine.threads))
        compared = None
        if reference is not None:
            compared = stack.enter_context(open_runtime("cpu", reference, threads=engine.threads))
        return evaluate(
            runtime,
            dataset,
            classes=classes,
            reference=compared,
            views=views,
            head=described.head,
            reference_head=reference_head,
            prepare=prepare,
            reference_prepare=reference_prepare,
            batch=batch,
            samples=samples,
            skip_bad=skip_bad,
            progress=progress,
        )


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
    reference: Source | None, views: Views, preprocessing: Preprocessing
) -> tuple[Preprocessing, Head]:
    """Return the model's ``preprocessing`` with what the reference takes of it, and what the reference gives."""
    from rexport.model_file import Head, Metadata, image_input, load
    from rexport.preprocessing import Takes

    path = None if reference is None else reference.path
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
