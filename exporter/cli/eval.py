"""``rexport eval``: accuracy, and agreement with another model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._calibration import OldAddress, OldEngine, WorkersChoice, parse_workers
from rexport.cli._divergence import Divergences
from rexport.cli._options import Data, Json, Mean, Resize, SkipBad, Std, Threads, Weights
from rexport.cli._paths import READ

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from rexport.calibration import Dataset, Views
    from rexport.calibration.workers import Workers
    from rexport.evaluation import Evaluation
    from rexport.evaluation.scores import Prepare
    from rexport.model_file import Head
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.source import Source

__all__ = ["eval"]

_AGREEING = 0.9  # a share of images below which a model is hardly the reference's, quantized


def eval(  # noqa: A001
    model: Annotated[
        str,
        READ,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file, an engine, or a network's name with --weights.",
            show_default=False,
        ),
    ],
    data: Data,
    weights: Weights = None,
    reference: Annotated[
        Path | None, READ, typer.Option(help="An ONNX file to compare with, such as the float model.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="What runs MODEL, such as openvino, cuda or tensorrt.",
            show_default="cpu, or what an INT8 file is for; torch for a network, TensorRT for an engine",
        ),
    ] = None,
    find_divergence: Divergences = False,
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
    workers: WorkersChoice = "local",
    engine: OldEngine = None,
    address: OldAddress = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure MODEL's top-1 and top-5 on labelled images, or its agreement with --reference on any.

    An ONNX file runs on ONNX Runtime's CPU provider, or --on another runtime, a network on PyTorch, an engine on
    TensorRT. An INT8 file for OpenVINO runs there, and one for TensorRT node by node, as it says. Several crops or
    scales of a picture give the average of their class probabilities. Whoever runs the images of a file, the result is
    the same. --find-divergence names the first layer that differs from --reference, or from MODEL itself, computed node
    by node.
    """
    from rexport._errors import UsageError
    from rexport.cli._console import note, print_json
    from rexport.cli._divergence import divergence_json, print_divergence, search
    from rexport.cli._eval_report import evaluation_json, print_evaluation
    from rexport.cli._options import report_skipped
    from rexport.runtimes.source import Source

    source = Source.parse(model, weights=weights)
    if source.network and weights is None:
        raise UsageError(f"{model} without weights knows nothing; pass --weights FILE, or an ONNX file.")
    views = _views(crops, scales, resize)
    described = _describe(source, views, resize=resize, mean=mean, std=std)
    chosen = parse_workers(workers, engine=engine, address=address, threads=threads)
    runtime = on or _default_runtime(source, described, chosen)
    _require_fitting(source, runtime, chosen)
    views.require(described.preprocessing)
    if find_divergence and reference is None:
        reference = _itself(source)
    other = None if reference is None else Source.parse(str(reference))
    opened = _open(data, described, other, views)
    result = _run(
        source,
        runtime,
        other,
        described,
        opened,
        views=views,
        batch=described.batch or batch,
        samples=samples,
        skip_bad=skip_bad,
        workers=chosen,
    )
    report_skipped(result.skipped)
    divergence = None
    if find_divergence and other is not None:
        divergence = search(
            source,
            runtime,
            other,
            opened.few(described.batch, skip_bad=skip_bad),
            takes=described.preprocessing.takes,
            threads=threads,
        )
    if as_json:
        document = evaluation_json(model, reference, views, result)
        print_json(document if divergence is None else document | {"divergence": divergence_json(divergence)})
        return
    print_evaluation(model, reference, views, result)
    if divergence is not None:
        print_divergence(divergence, model=model, runtime=runtime, reference=str(reference))
    elif result.comparison is not None and result.comparison.agreement < _AGREEING:
        note("the two agree on few images; --find-divergence names the first layer that differs.")


@dataclass(frozen=True, kw_only=True)
class _Described:
    """What is known of a model without running it; ``batch`` is what it insists on.

    ``judging_runtime`` shows what an ONNX file computes (see ``rexport.evaluation.judging``).
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    batch: int | None
    head: Head
    judging_runtime: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """Images, and what makes of them the input of the model and of the reference, which gives ``reference_head``."""

    dataset: Dataset
    prepare: Prepare | None
    reference_prepare: Prepare | None
    reference_head: Head

    def few(self, batch: int | None, *, skip_bad: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return some images as the model and as the reference take them; as many as it insists on, or up to four."""
        count = min(batch or 4, len(self.dataset))
        images = next(iter(self.dataset.batches(count, samples=count, skip_bad=skip_bad))).images
        ours, theirs = (
            images if prepare is None else prepare(images) for prepare in (self.prepare, self.reference_prepare)
        )
        return ours, theirs


def _itself(source: Source) -> Path:
    """Return the file that a model without a reference is compared with: itself, node by node on the CPU."""
    from rexport._errors import UsageError
    from rexport.engine_file import is_engine, read_facts

    if source.path is None:
        raise UsageError(f"--find-divergence compares files, and {source} is a network; export it with `rexport onnx`.")
    if is_engine(source.path):
        origin = read_facts(source.path).onnx
        raise UsageError(f"--find-divergence takes the file that {source} was built from: --reference {origin}.")
    return source.path


def _default_runtime(source: Source, described: _Described, workers: Workers) -> str:
    """Return what shows what a model computes, and say so where that is not ONNX Runtime as it runs other files."""
    from rexport.calibration.workers import LocalWorkers
    from rexport.cli._console import note
    from rexport.runtimes import NODE_BY_NODE, default_runtime

    runtime = default_runtime(source)
    if runtime != "cpu" or described.judging_runtime == "cpu":
        return runtime
    runtime = described.judging_runtime if isinstance(workers, LocalWorkers) else NODE_BY_NODE
    note(f"{source} is for another runtime than ONNX Runtime; it runs on {runtime} here (choose with --on).")
    return runtime


def _runs_in_workers(runtime: str) -> bool:
    """Say whether all workers have a runtime."""
    from rexport.runtimes import NODE_BY_NODE

    return runtime in ("cpu", NODE_BY_NODE)


def _require_fitting(source: Source, runtime: str, workers: Workers) -> None:
    from rexport._errors import UsageError
    from rexport.calibration.workers import LocalWorkers

    if isinstance(workers, LocalWorkers):
        return
    if source.path is None:
        raise UsageError(
            f"--workers runs ONNX files, and {source} is a network of PyTorch; export it with `rexport onnx`, or leave "
            "--workers out."
        )
    if not _runs_in_workers(runtime):
        raise UsageError(f"--workers runs files on ONNX Runtime's CPU provider; leave it or --on {runtime} out.")


def _open(data: Path, described: _Described, reference: Source | None, views: Views) -> _Opened:
    from rexport.calibration import open_dataset
    from rexport.cli._console import note

    ours, classes = described.preprocessing, described.classes
    theirs, reference_head = _describe_reference(reference, views, ours)
    shown = max(ours, theirs, key=lambda one: len(one.takes.in_graph))  # the other can be made of it
    dataset = open_dataset(data, shown)
    if classes and dataset.classes and not set(dataset.classes) <= set(classes):
        note(
            f"the folders in {data} are not named as the model's classes ({classes[0]} … {classes[-1]}); taking them, "
            "sorted by name, for its outputs in order."
        )
    return _Opened(
        dataset=dataset,
        prepare=_prepare(shown, ours),
        reference_prepare=_prepare(shown, theirs),
        reference_head=reference_head,
    )


def _run(
    source: Source,
    runtime: str,
    reference: Source | None,
    described: _Described,
    opened: _Opened,
    *,
    views: Views,
    batch: int,
    samples: int | None,
    skip_bad: bool,
    workers: Workers,
) -> Evaluation:
    """Run a file on the CPU with the workers, anything else in this process."""
    from rexport.cli._console import progress
    from rexport.evaluation import ClassifierFile, evaluate, evaluate_file
    from rexport.runtimes import open_runtime

    if source.path is not None and _runs_in_workers(runtime):
        other = None
        if reference is not None and reference.path is not None:
            path = reference.path.absolute()
            other = ClassifierFile(path=path, head=opened.reference_head, prepare=opened.reference_prepare)
        return evaluate_file(
            ClassifierFile(path=source.path.absolute(), head=described.head, prepare=opened.prepare, runtime=runtime),
            opened.dataset,
            classes=described.classes,
            reference=other,
            views=views,
            batch=batch,
            samples=samples,
            skip_bad=skip_bad,
            workers=workers,
            progress=progress,
        )
    with ExitStack() as stack:
        loaded = stack.enter_context(open_runtime(runtime, source, threads=workers.threads))
        compared = None
        if reference is not None:
            compared = stack.enter_context(open_runtime("cpu", reference, threads=workers.threads))
        return evaluate(
            loaded,
            opened.dataset,
            classes=described.classes,
            reference=compared,
            views=views,
            head=described.head,
            reference_head=opened.reference_head,
            prepare=opened.prepare,
            reference_prepare=opened.reference_prepare,
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
    from rexport.classifier_head import head_of
    from rexport.cli._console import note
    from rexport.cli._options import model_preprocessing
    from rexport.evaluation.described import described
    from rexport.evaluation.judging import judging_runtime
    from rexport.model_file import Head, Metadata, image_input
    from rexport.models import known_facts, network_preprocessing, registry
    from rexport.preprocessing import PictureOptions

    if source.path is None:
        network = registry.find(str(source.network))
        options = PictureOptions.parse(resize=resize, mean=mean, std=std)
        preprocessing, said = network_preprocessing(network, source.weights, options)
        if said is not None:
            note(said)
        return _Described(
            preprocessing=preprocessing,
            classes=known_facts(network, source.weights).classes,
            batch=None,
            head=Head.SOFTMAX if network.members else Head.LOGITS,
        )
    loaded = described(source.path)
    _require_classifier(loaded, source.path, views)
    return _Described(
        preprocessing=model_preprocessing(loaded, source.path, resize=resize, mean=mean, std=std),
        classes=Metadata.of(loaded).classes,
        batch=image_input(loaded).batch,
        head=head_of(loaded),
        judging_runtime=judging_runtime(loaded),
    )


def _describe_reference(
    reference: Source | None, views: Views, preprocessing: Preprocessing
) -> tuple[Preprocessing, Head]:
    """Return the model's ``preprocessing`` with what the reference takes of it, and what the reference gives."""
    from rexport.classifier_head import head_of
    from rexport.model_file import Head, Metadata, image_input, load
    from rexport.preprocessing import Takes

    path = None if reference is None else reference.path
    if path is None:
        return preprocessing, Head.LOGITS
    loaded = load(path)
    _require_classifier(loaded, path, views)
    stated = Metadata.of(loaded).preprocessing
    takes = stated.takes if stated else Takes.PIXELS if image_input(loaded).raw else Takes.NORMALISED
    return replace(preprocessing, takes=takes), head_of(loaded)


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
