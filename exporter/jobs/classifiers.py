"""What is known of a classifier without running it: how pictures become its input, and what its outputs are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._apart import require_exists
from rexport._errors import ModelFileError, UsageError
from rexport.classifier_head import head_of
from rexport.evaluation.described import described
from rexport.evaluation.judging import judging_runtime
from rexport.model_file import Head, Metadata, load
from rexport.model_inputs import image_input, preprocessing_of
from rexport.preprocessing import PictureOptions
from rexport.runtimes import NODE_BY_NODE, default_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport._progress import Note
    from rexport.preprocessing import Preprocessing, Size

__all__ = ["ClassifierFacts", "choose_runtime", "describe", "describe_reference"]


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts:
    """A classifier that was not loaded yet.

    Attributes:
        source: The file or network.
        preprocessing: How pictures become its input.
        head: The kind of its outputs.
        classes: Their names, in order; empty if it does not know them.
        batch: The number of images that it insists on.
        size: The height and width of pictures that a file insists on.
        judging_runtime: The runtime that shows what an ONNX file computes (see ``rexport.evaluation.judging``).
    """

    source: Source
    preprocessing: Preprocessing
    head: Head
    classes: tuple[str, ...] = ()
    batch: int | None = None
    size: Size | None = None
    judging_runtime: str = "cpu"

    @property
    def path(self) -> Path:
        """Its file, which a network does not have."""
        assert self.source.path is not None
        return self.source.path


def describe(source: Source, options: PictureOptions, note: Note, *, loaded: ir.Model | None = None) -> ClassifierFacts:
    """Describe a file, or a network with weights; ``note`` is told what is assumed of its pictures.

    Args:
        source: The file or network.
        options: Overrides of the preprocessing that it states.
        note: Called with a sentence.
        loaded: The model in the file, if it was read already.

    Raises:
        UsageError: The network has no weights.
        ModelFileError: The file can't be read, or is no classifier.
    """
    if source.path is not None:
        model = described(source.path) if loaded is None else loaded
        return _of_file(model, source.path, options, note)
    return _of_network(source, options, note)


def describe_reference(path: Path, model: ClassifierFacts, options: PictureOptions, note: Note) -> ClassifierFacts:
    """Describe a reference for a model.

    Its pictures are prepared as its file states; where it states nothing, or the user's ``options`` say how, as for the
    model.
    """
    require_exists(path)
    reference = load(path)
    _require_classifier(reference, path)
    image, stated = image_input(reference, path), Metadata.of(reference).preprocessing
    takes = image.takes if stated is None else stated.takes
    preprocessing = replace(model.preprocessing, takes=takes, layout=image.layout)
    if stated is not None and not stated.assumed and options == PictureOptions():
        own = replace(stated, layout=image.layout)
        if own != preprocessing:
            note(f"{path} and {model.source} state different preprocessing, so each is shown pictures as it states.")
        preprocessing = own
    return ClassifierFacts(
        source=Source(path=path),
        preprocessing=preprocessing,
        head=head_of(reference),
        size=image.size,
    )


def choose_runtime(model: ClassifierFacts, note: Note, *, in_workers: bool = False) -> str:
    """Return what shows what a model computes, and say so where that is not ONNX Runtime as it runs other files."""
    runtime = default_runtime(model.source)
    if runtime != "cpu" or model.judging_runtime == "cpu":
        return runtime
    runtime = NODE_BY_NODE if in_workers else model.judging_runtime
    note(f"{model.source} is for another runtime than ONNX Runtime; it runs on {runtime} here (choose with --on).")
    return runtime


def _of_file(model: ir.Model, path: Path, options: PictureOptions, note: Note) -> ClassifierFacts:
    _require_classifier(model, path)
    image = image_input(model, path)
    return ClassifierFacts(
        source=Source(path=path),
        preprocessing=preprocessing_of(model, path, options, note=note),
        head=head_of(model),
        classes=Metadata.of(model).classes,
        batch=image.batch,
        size=image.size,
        judging_runtime=judging_runtime(model),
    )


def _of_network(source: Source, options: PictureOptions, note: Note) -> ClassifierFacts:
    from rexport.models import known_facts, network_preprocessing, registry  # loads PyTorch, which files do not need
    from rexport.models.published_weights import fetch_named

    network = registry.find(str(source.network))
    if source.weights is None and (named := fetch_named(network)):
        source = replace(source, weights=Path(named))
    if source.weights is None:
        raise UsageError(f"{source} without weights knows nothing; pass --weights FILE, or an ONNX file.")
    module = network.construct(source.num_classes or network.num_classes).eval()
    preprocessing, assumed = network_preprocessing(network, source.weights, options, module=module)
    if assumed is not None:
        note(assumed)
    return ClassifierFacts(
        source=source,
        preprocessing=preprocessing,
        head=Head.SOFTMAX if network.members else Head.LOGITS,
        classes=known_facts(network, source.weights).classes,
    )


def _require_classifier(model: ir.Model, path: Path) -> None:
    if features := Metadata.of(model).features:
        raise ModelFileError(
            f"{path} is no classifier: it gives the features {', '.join(features)}. `rexport eval --reference FILE` "
            "compares them with those of another file."
        )
