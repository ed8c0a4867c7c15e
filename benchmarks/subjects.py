"""The models of a benchmark, as far as their files or names tell before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rexport import model_file, model_inputs
from rexport._errors import EngineFileError, ModelFileError, UsageError
from rexport.benchmarks.outputs import Identity, Precision, precision_of
from rexport.classifier_head import head_of
from rexport.engine_file import is_engine, read_facts
from rexport.evaluation.described import described
from rexport.model_file import Head
from rexport.models import for_channels_of, known_facts, registry
from rexport.preprocessing import Preprocessing, Takes, size_in_words
from rexport.runtimes import NETWORK_RUNTIMES
from rexport.runtimes._engine_shapes import EngineShapes
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from rexport.model_inputs import TensorInput

__all__ = ["Subject", "examine"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to measure.

    ``network`` is what PyTorch can run in its place; ``no_network`` says why there is none. ``preprocessing`` makes its
    input of pictures; a file that takes none is given ``tensors``. ``classes`` are the names of its outputs, where
    known. A file of ``fixed_batch`` takes no other one, an engine of ``batches`` none but these. ``cautions`` are what
    should make a reader of its times careful, in sentences.
    """

    source: Source
    preprocessing: Preprocessing | None
    identity: Identity
    tensors: tuple[TensorInput, ...] = ()
    fixed_batch: int | None = None
    batches: range | None = None
    network: Source | None = None
    no_network: str = ""
    classes: tuple[str, ...] = field(default=(), repr=False)
    cautions: tuple[str, ...] = ()

    def on(self, runtime: str) -> Source | None:
        """Return what this runtime runs; ``None`` if it runs networks and there is none."""
        return self.network if runtime in NETWORK_RUNTIMES else self.source

    def drawn_on(self, runtime: str) -> str | None:
        """Return the network's name where this runtime draws its weights from a seed, which no file's need to be."""
        source = self.on(runtime)
        if source is None or source.weights is not None:
            return None
        return source.network

    def takes_on(self, runtime: str) -> Preprocessing | None:
        """Return what makes this runtime's input of pictures; ``None`` where it takes none."""
        if self.preprocessing is not None and runtime in NETWORK_RUNTIMES:
            return replace(self.preprocessing, takes=Takes.NORMALISED, layout=None)
        return self.preprocessing


def examine(source: Source, shapes: Mapping[str, Sequence[int]] | None = None) -> Subject:
    """Look at a file or a network.

    Args:
        source: The file or network.
        shapes: The shapes of inputs of files that take no pictures, where they are open.

    Raises:
        UsageError: There is no such network, or an input has another shape.
        ModelFileError: The file takes what no array is.
        EngineFileError: Nothing lies beside an engine file, or it is no engine of images.
    """
    if source.path is not None and is_engine(source.path):
        return _engine(source, source.path)
    if source.path is not None:
        return _file(source, source.path, shapes or {})
    return _network(source)


def _network(source: Source) -> Subject:
    entry = registry.find(str(source.network))
    facts = known_facts(entry, source.weights)
    module = entry.construct(source.num_classes or entry.num_classes).eval()
    preprocessing = facts.preprocessing or Preprocessing.default_for(entry.input_size)
    return Subject(
        source=source,
        preprocessing=for_channels_of(module, preprocessing),
        identity=Identity(precision=Precision.FLOAT32, network=entry.name, weights=None, softmax=bool(entry.members)),
        network=source,
        classes=facts.classes,
    )


def _file(source: Source, path: Path, shapes: Mapping[str, Sequence[int]]) -> Subject:
    model = model_file.load(path)
    metadata = model_file.Metadata.of(model)
    try:
        image = model_inputs.image_input(model, path)
    except ModelFileError:
        tensors = model_inputs.tensor_inputs(model, path)
        return Subject(
            source=source,
            preprocessing=None,
            identity=_identity(model, metadata),
            tensors=tuple(t.sized(shapes[t.name], path) if t.name in shapes else t for t in tensors),
            fixed_batch=model_inputs.fixed_batch(model),
            no_network=f"{source} takes no pictures, and PyTorch runs networks of pictures.",
        )
    preprocessing = model_inputs.preprocessing_of(model, path)
    network, no_network = _network_of(source, metadata)
    cautions: tuple[str, ...] = ()
    if model_inputs.is_size_assumed(model):
        size = size_in_words(preprocessing.size)
        cautions = (f"its picture size is dynamic and not stated: measured at {size}",)
    return Subject(
        source=source,
        preprocessing=preprocessing,
        identity=_identity(model, metadata),
        fixed_batch=image.batch,
        network=network,
        no_network=no_network,
        classes=metadata.classes,
        cautions=cautions,
    )


def _engine(source: Source, path: Path) -> Subject:
    """Take the word of what lies beside the file, which is loaded nowhere but on its own runtime."""
    facts = read_facts(path)
    image = EngineShapes.of_facts(facts)
    metadata = model_file.Metadata.of_properties(facts.metadata)
    try:
        preprocessing = model_inputs.preprocessing_of(described(path), path)
    except ModelFileError as error:
        raise EngineFileError(str(error)) from error
    quantized = any(layer.get("precision") == "int8" for layer in facts.layers)
    return Subject(
        source=source,
        preprocessing=preprocessing,
        identity=Identity(
            # TensorRT computes float32 with the 10 bits of TensorFloat-32, as many as float16 has
            precision=Precision.INT8 if quantized else Precision.FLOAT16,
            network=metadata.network,
            weights=metadata.weights_sha256,
            softmax=metadata.head is Head.SOFTMAX,
        ),
        fixed_batch=image.most if image.least == image.most else None,
        batches=range(image.least, image.most + 1),
        no_network=f"{source} is an engine, and PyTorch runs networks.",
        classes=metadata.classes,
    )


def _identity(model: ir.Model, metadata: model_file.Metadata) -> Identity:
    return Identity(
        precision=precision_of(model),
        network=metadata.network,
        weights=metadata.weights_sha256,
        softmax=head_of(model) is Head.SOFTMAX,
    )


def _network_of(source: Source, metadata: model_file.Metadata) -> tuple[Source | None, str]:
    if metadata.quantization is not None:
        return None, f"{source} is quantized, and PyTorch runs float networks; measure it with --on cpu."
    if metadata.features:
        return None, f"{source} is a backbone, and PyTorch would run the whole network; measure it with --on cpu."
    if metadata.network is None:
        return None, f"{source} does not say which network it was exported from, so PyTorch can't build it."
    try:
        return Source(network=registry.find(metadata.network).name), ""
    except UsageError:
        return None, f"{source} was exported from {metadata.network}, which is not in the zoo."
