"""Exporting a network, given by its name, to an ONNX file that is verified against it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._errors import UsageError
from rexport._files import check_writable
from rexport._progress import Note, Progress, silent, unsaid
from rexport._user_code import function_named
from rexport._words import in_units
from rexport.calibration import calibrate
from rexport.choices import FloatPrecision
from rexport.class_names import read_class_names
from rexport.engine_file import is_engine
from rexport.exporting import DEFAULT_TOLERANCE, export, export_example
from rexport.exporting.export import DEFAULT_OPSET
from rexport.exporting.half import to_half
from rexport.jobs.examples import open_examples
from rexport.jobs.result import JobResult
from rexport.model_file import Head, Metadata, default_opset, save, tensor_in_words, tensor_json
from rexport.model_inputs import fixed_batch
from rexport.models import known_facts, network_preprocessing, registry
from rexport.models.checkpoint_network import network_of
from rexport.models.modules import in_one_line, outputs_in, results_of
from rexport.models.published_weights import fetch_named
from rexport.preprocessing import PictureOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rexport.exporting import ExportResult
    from rexport.exporting.half import HalfResult
    from rexport.models.zoo import Network
    from rexport.preprocessing import Preprocessing

__all__ = ["ExportReport", "ExportRequest", "run"]

_OVERFLOW_EXAMPLES, _OVERFLOW_BATCH = 64, 8


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The settings of an export.

    Attributes:
        network: A name, a spec, a reference, a checkpoint that names its network, or the module itself, which is left
            as it is.
        output: The file to write.
        weights: A state dict, a checkpoint with one, or published weights; by default random ones.
        num_classes: The number of outputs; by default that of the weights, or the network's own.
        result: The key or number of the tensor to export, for a network that returns several.
        results: Those of several tensors, each of which becomes an output under its own name.
        class_names: A text file with a name per line, or a folder with a folder per class.
        options: Overrides of the size, resizing and normalisation of pictures.
        batch: The fixed batch size; ``None`` for any.
        any_size: Whether it takes pictures of any height and width.
        raw_image: Whether it takes pixels, uint8 ``[N, H, W, C]``, and normalises them itself.
        resize_in_graph: Whether it takes whole pictures, uint8 ``[N, H, W, 3]``, and cuts them too.
        head: Whether it gives logits or class probabilities.
        features: The modules whose results it gives instead.
        opset: The version of the ONNX operators.
        precision: The precision of weights and computation.
        data: Pictures or arrays for float16: layers that overflow on them stay in float32.
        fused: Whether the fusion passes run.
        tolerance: The largest difference from PyTorch, relative to an output's largest value.
        example: What a network takes that takes no picture: a tensor, a tuple of tensors, a dictionary of keyword
            arguments, or ``module:function``, which returns one of these.

    Raises:
        UsageError: The values do not go together.
    """

    network: str | nn.Module
    output: Path = field(metadata=WRITE)
    weights: Path | None = field(default=None, metadata=READ)
    num_classes: int | None = None
    result: str | None = None
    results: tuple[str, ...] = ()
    class_names: Path | None = field(default=None, metadata=READ_IMAGES)
    options: PictureOptions = field(default_factory=PictureOptions)
    batch: int | None = None
    any_size: bool = False
    raw_image: bool = False
    resize_in_graph: bool = False
    head: Head = Head.LOGITS
    features: tuple[str, ...] = ()
    opset: int = DEFAULT_OPSET
    precision: FloatPrecision = FloatPrecision.FP32
    data: Path | None = field(default=None, metadata=READ_IMAGES)
    fused: bool = True
    tolerance: float = DEFAULT_TOLERANCE
    example: str | torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        if is_engine(self.output):
            onnx = self.output.with_suffix(".onnx")
            raise UsageError(
                f"-o {self.output}: this command writes ONNX files; pass -o {onnx}, and build the engine from it with "
                f"`rexport engine {onnx} -o {self.output}`."
            )
        if self.data is not None and self.precision is not FloatPrecision.FP16:
            raise UsageError("--data finds the layers that overflow in float16; pass --precision fp16 with it.")
        if self.example is not None:
            self._require_no_pictures()
        if self.features and (self.result is not None or self.results):
            raise UsageError(
                "--features gives the results of modules, so --result means nothing with it; pass one of them."
            )
        if not self.features and not self.results:
            return
        several = "--features" if self.features else f"--result {','.join(self.results)}"
        options = {"--class-names": self.class_names is not None, f"--head {self.head}": self.head is not Head.LOGITS}
        for option, is_given in options.items():
            if is_given:
                raise UsageError(f"{several} gives no classes, so {option} means nothing with it; pass one of the two.")

    def _require_no_pictures(self) -> None:
        if self.results:
            raise UsageError(
                "--example exports all that a network returns, or the one that --result names; name one, or leave it "
                "out."
            )
        stated = {f"--{name}": value is not None for name, value in vars(self.options).items()}
        options = stated | {
            "--any-size": self.any_size,
            "--raw-image": self.raw_image,
            "--resize-in-graph": self.resize_in_graph,
            f"--head {self.head}": self.head is not Head.LOGITS,
            "--class-names": self.class_names is not None,
            "--features": bool(self.features),
        }
        for option, is_given in options.items():
            if is_given:
                raise UsageError(
                    f"--example exports all that a network takes and returns, and {option} is for classifiers of "
                    "pictures; pass one of the two."
                )

    @property
    def network_name(self) -> str:
        """The name of the network, or of the module's class."""
        return self.network if isinstance(self.network, str) else type(self.network).__name__


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportReport(JobResult):
    """What was written: the model and its proof, its classes, and its conversion to float16 if it was converted."""

    request: ExportRequest
    exported: ExportResult
    classes: tuple[str, ...]
    half: HalfResult | None
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.onnx/1``."""
        model = self.exported.model
        metadata = Metadata.of(model)
        document: dict[str, Any] = {
            "schema": "rexport.onnx/1",
            "file": str(self.request.output),
            "bytes": self.size,
            "network": self.request.network_name,
            "opset": default_opset(model),
            "head": None if metadata.features or metadata.preprocessing is None else metadata.head,
            "features": metadata.features,
            "inputs": [tensor_json(value) for value in model.graph.inputs],
            "outputs": [tensor_json(value) for value in model.graph.outputs],
            "weights_sha256": metadata.weights_sha256,
            "parity": self.exported.parity.to_json(),
            "passes": [report.to_json() for report in self.exported.reports],
            "precision": str(self.request.precision),
        }
        if self.half is not None:
            document["half"] = self.half.to_json()
        return document

    def facts(self) -> dict[str, str]:
        """Return the file, what it takes and gives, and the proof."""
        graph = self.exported.model.graph
        return {
            "file": f"{self.request.output}, {in_units(self.size)}",
            "input": ", ".join(map(tensor_in_words, graph.inputs)),
            "output": ", ".join(map(tensor_in_words, graph.outputs)),
            "verified": str(self.exported.parity),
        }


def run(request: ExportRequest, *, progress: Progress = silent, note: Note = unsaid) -> ExportReport:
    """Build the network, export and prove it, and write the file.

    Raises:
        UsageError: There is no such network, or the values do not fit it.
        WeightsError: The weights can't be read, or are of another network.
        DataError: Pictures or names can't be read.
        VerificationError: The file is not equal to PyTorch.
        OutputError: The file can't be written.
    """
    request = _with_network(request, note)
    require_files_apart(request)
    check_writable(request.output)
    example = _call(request.example) if isinstance(request.example, str) else request.example
    network = registry.find(request.network)
    request = _with_results(request, network)
    weights = fetch_named(network) if request.weights is None else request.weights
    module = registry.build(
        request.network,
        weights=weights,
        num_classes=request.num_classes,
        result=request.result if request.example is None else None,
        tell=note,
    )
    if weights is None and isinstance(request.network, str):
        note(f"{request.network} has random weights, which are good only for measuring speed; pass --weights FILE.")
    classes: tuple[str, ...] = ()
    if example is None:
        preprocessing, classes = _pictures(request, network, module, weights, note)
        with progress(f"exporting {request.network_name}", None):
            exported = _export(request, module, preprocessing, classes)
    else:
        with progress(f"exporting {request.network_name}", None):
            exported = _export_example(request, module, example)
    model, half = exported.model, None
    if request.precision is FloatPrecision.FP16:
        half = _in_half(exported, request, progress, note)
        model = half.conversion.model
    save(model, request.output)
    return ExportReport(
        request=request, exported=exported, classes=classes, half=half, size=request.output.stat().st_size
    )


def _with_network(request: ExportRequest, note: Note) -> ExportRequest:
    """Return the request with the network that a checkpoint names, if one was given in the place of a network."""
    path = Path(request.network) if isinstance(request.network, str) else None
    if path is None or path.suffix.lower() == ".onnx" or not path.is_file():
        return request
    if request.weights is not None:
        raise UsageError(f"{path} is a file, and so is --weights; name the network, such as resnet50, and one of them.")
    name = network_of(path)
    note(f"{path} names its network: {name}.")
    return replace(request, network=name, weights=path)


def _with_results(request: ExportRequest, network: Network) -> ExportRequest:
    """Return the request for outputs of any shape, where the network gives no scores of classes."""
    if not network.no_classifier:
        return request
    if request.result is not None:
        request = replace(request, result=None, results=(request.result,))
    if not (request.features or request.results):
        raise UsageError(network.no_classifier)
    return request


def _call(reference: str) -> object:
    """Return what a function of the user's returns."""
    function = function_named(reference)
    try:
        return function()
    except Exception as error:  # whatever a function of the user's raises
        raise UsageError(f"--example {reference} fails ({in_one_line(error)}).") from error


def _pictures(
    request: ExportRequest, network: Network, module: nn.Module, weights: Path | str | None, note: Note
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return how pictures become the network's input, and the names of its classes."""
    preprocessing, remark = network_preprocessing(network, weights, request.options, module=module)
    classes: tuple[str, ...] = ()
    if not request.features and not request.results:
        outputs = _outputs(module, request, preprocessing, note)
        classes = _class_names(request, known_facts(network, weights).classes, outputs)
    if remark is not None:
        note(remark)
    return preprocessing, classes


def _export_example(request: ExportRequest, module: nn.Module, example: object) -> ExportResult:
    return export_example(
        module,
        example,
        network=request.network if isinstance(request.network, str) else None,
        result=request.result,
        batch=request.batch,
        opset=request.opset,
        fused=request.fused,
        tolerance=request.tolerance,
    )


def _export(
    request: ExportRequest, module: nn.Module, preprocessing: Preprocessing, classes: tuple[str, ...]
) -> ExportResult:
    return export(
        module,
        preprocessing=preprocessing,
        network=request.network if isinstance(request.network, str) else None,
        classes=classes,
        head=request.head,
        features=request.features,
        results=request.results,
        batch=request.batch,
        any_size=request.any_size,
        raw_image=request.raw_image,
        resize_in_graph=request.resize_in_graph,
        opset=request.opset,
        fused=request.fused,
        tolerance=request.tolerance,
    )


def _outputs(module: nn.Module, request: ExportRequest, preprocessing: Preprocessing, note: Note) -> int:
    """Run the network and return how many outputs it has, as many as were asked for."""
    results = results_of(module, replace(preprocessing, layout=None).input_shape)
    network, name = request.network_name, request.result
    if name is None:
        name = next(iter(results))
        if len(results) > 1:
            note(
                f"{network} returns {', '.join(results)}; this is {name}, and --result NAME takes another, or "
                f"--result {','.join(results)} all."
            )
    if name not in results:
        raise UsageError(f"--result {name}: {network} returns {', '.join(results)}.")
    outputs = outputs_in(results[name])
    if request.num_classes not in (None, outputs):
        raise UsageError(
            f"--num-classes {request.num_classes} has no effect: {network} has {outputs} outputs; leave it "
            "out, or let the callable take num_classes."
        )
    return outputs


def _class_names(request: ExportRequest, published: tuple[str, ...], outputs: int) -> tuple[str, ...]:
    """Return the names that were given, or those that the weights or their publishers state."""
    path = request.class_names
    if path is None:
        return published if len(published) == outputs else ()
    names = read_class_names(path)
    if len(names) != outputs:
        raise UsageError(f"--class-names {path} has {len(names)} names, and the network {outputs} outputs.")
    return names


def _in_half(exported: ExportResult, request: ExportRequest, progress: Progress, note: Note) -> HalfResult:
    """Return the model in float16; layers that overflow on the request's data or example stay in float32."""
    model, feeds = exported.model, exported.feed
    if request.data is not None:
        dataset = open_examples(request.data, model, request.output, Metadata.of(model).preprocessing)
        batches = dataset.batches(fixed_batch(model) or _OVERFLOW_BATCH, samples=_OVERFLOW_EXAMPLES)
        total = min(_OVERFLOW_EXAMPLES, len(dataset))
        table = calibrate(model, (batch.feed for batch in batches), total=total, progress=progress)
    elif feeds is not None:
        table = calibrate(model, [feeds])
    else:
        note("overflow in float16 was not checked; pass --data DIR with some images.")
        return to_half(model)
    largest = {name: max(-seen.low, seen.high) for name, seen in table.tensors.items()}
    return to_half(model, largest=largest, feeds=feeds)
