"""A PyTorch module becomes an ONNX model: exported, fused, proven equal, and labelled with its origin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from rexport._errors import UsageError, VerificationError
from rexport.classifier_head import head_of
from rexport.exporting._features import drop_copies, require_features, returning
from rexport.exporting._names import name_after_modules, name_tensors, output_names
from rexport.exporting._sizes import other_size, require_any_size
from rexport.exporting._translation import (
    DEFAULT_OPSET,
    OPSETS,
    fused_at,
    origin_of,
    require_opset,
    require_valid,
    translate,
)
from rexport.exporting.parity import DEFAULT_TOLERANCE, PROBABILITIES, Parity, prove_parity
from rexport.model_file import Head, Metadata
from rexport.model_inputs import image_input
from rexport.models.modules import outputs_in, require_results, result_of, results_of, returning_all, unwrapped
from rexport.passes import FoldConstants
from rexport.passes.raw_image import with_raw_images
from rexport.passes.resize_in_graph import require_resizing, with_resize
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rexport.passes import PassReport
    from rexport.preprocessing import Preprocessing

__all__ = ["DEFAULT_OPSET", "OPSETS", "ExportResult", "export"]

_INPUT = "images"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The result of an export.

    Attributes:
        model: The model.
        parity: The proof that it is equal to the module.
        reports: Of the passes that it went through.
        feed: The user's example, by the names of the model's inputs; ``None`` if it takes pictures.
    """

    model: ir.Model
    parity: Parity
    reports: tuple[PassReport, ...]
    feed: dict[str, np.ndarray] | None = None


def export(
    module: torch.nn.Module,
    *,
    preprocessing: Preprocessing,
    network: str | None = None,
    classes: Sequence[str] = (),
    head: Head = Head.LOGITS,
    features: Sequence[str] = (),
    results: Sequence[str] = (),
    batch: int | None = None,
    any_size: bool = False,
    raw_image: bool = False,
    resize_in_graph: bool = False,
    opset: int = DEFAULT_OPSET,
    fused: bool = True,
    tolerance: float = DEFAULT_TOLERANCE,
) -> ExportResult:
    """Export ``module`` as it is in eval mode, and prove the result.

    Args:
        module: Takes float32 of shape ``(N, C, H, W)`` and returns logits of shape ``(N, classes)``, or anything
            if there are ``features``; of several tensors, the first is used. It is put into eval mode, and unwrapped
            from ``torch.compile`` or DataParallel.
        preprocessing: How pictures become its input. The options below determine how much of it the file does.
        network: The name to store in the file, from which later commands can build the network again.
        classes: The names of its outputs, in order.
        head: The output of the file: ``logits``, or their softmax, called ``probabilities``. A network that ends in a
            softmax itself, such as an ensemble, gives that in any case.
        features: Names of modules in it (of ``named_modules()``) whose results are the outputs of the file, in this
            order and under these names, each of shape ``(N, ...)``. The file holds only the layers that they need.
        results: Instead, the names of tensors that it returns (see :func:`rexport.models.modules.named_results`), to be
            the outputs of the file; one that is called as a weight or the input gets ``_out`` behind its name.
        batch: A fixed batch size; by default any.
        any_size: Whether the file takes pictures of any height and width, as a network that averages globally can.
        raw_image: Whether the file takes uint8 of shape ``(N, H, W, C)``, pixels as a camera gives them, and normalises
            them in its first convolutions (see :func:`rexport.passes.raw_image.with_raw_images`).
        resize_in_graph: Whether it takes uint8 of shape ``(N, H, W, C)``, of any height and width, and resizes and cuts
            them itself too (see :func:`rexport.passes.resize_in_graph.with_resize`).
        opset: The version of the standard ONNX operators, one of ``OPSETS``.
        fused: Whether to run the passes of :data:`rexport.passes.DEFAULT_PASSES` (see :func:`rexport.passes.fuse`).
        tolerance: See :func:`prove_parity`.

    Raises:
        UsageError: The opset is not one of ``OPSETS``, or too old to resize; there is no such feature or result, or it
            comes with class names or a softmax; the network needs one size or another number of class names, does not
            run, or can't be exported; or the preprocessing lacks the size to resize to.
        InputError: PyTorch can't export the network.
        ModelFileError: Raw images were asked for, and not only convolutions read the images.
        VerificationError: The result is not valid ONNX, not of the opset, or not equal to the module.
    """
    require_opset(opset)
    if any_size and resize_in_graph:
        raise UsageError("--resize-in-graph takes pictures of any size already; leave --any-size out.")
    _require_head(head, features or results, classes)
    if resize_in_graph:
        require_resizing(preprocessing, opset)
    module = unwrapped(module)
    module.eval()
    preprocessing = replace(preprocessing, takes=Takes.NORMALISED, layout=None)  # until the passes below change it
    shape, size = preprocessing.input_shape, preprocessing.size
    _require_outputs(module, shape, features, results, classes)
    named = output_names(results, {_INPUT, *module.state_dict()})
    dynamic = {} if batch else {0: "batch"}
    if any_size:
        require_any_size(module, shape)
        shape = (shape[0], *other_size(size))
        dynamic |= {2: "height", 3: "width"}
    with returning_all(module, results) if results else returning(module, features):
        model, calls = translate(
            module,
            (torch.zeros(batch or 2, *shape),),
            inputs=[_INPUT],
            outputs=features or list(named) or ["logits"],
            dynamic=dynamic,
            opset=opset,
        )
    if features:
        drop_copies(model)
    if results:
        name_tensors(model.graph, [_INPUT], list(named))
    FoldConstants()(model)
    final_head, appended = _with_head(model, head, features or results)
    name_after_modules(model, module, calls)
    model, reports = fused_at(model, opset=opset, fused=fused)
    if raw_image or resize_in_graph:
        model = with_raw_images(model, preprocessing)
    if resize_in_graph:
        model = with_resize(model)
    replace(
        origin_of(module, network),
        preprocessing=Metadata.of(model).preprocessing or preprocessing,
        classes=tuple(classes),
        head=final_head,
        features=tuple(features or named),
    ).write_to(model)
    require_valid(model, opset=opset)
    if any_size and image_input(model).size is not None:
        raise VerificationError("PyTorch's exporter fixed the picture size to the example's.")
    parity = prove_parity(
        module, model, size=size, head=appended, features=features, results=results, tolerance=tolerance
    )
    return ExportResult(model=model, parity=parity, reports=reports)


def _require_head(head: Head, features: Sequence[str], classes: Sequence[str]) -> None:
    if features and (classes or head is not Head.LOGITS):
        raise UsageError("Features have no classes and no softmax; export either features or a classifier.")
    if head is Head.LOG_SOFTMAX:
        raise UsageError(
            f"The head is {Head.LOGITS} or {Head.SOFTMAX}; {head} is kept only where the network ends in it."
        )


def _require_outputs(
    module: torch.nn.Module,
    shape: Sequence[int],
    features: Sequence[str],
    results: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Make sure that the network runs, and has these features or results, or as many outputs as classes."""
    if features:
        require_features(module, features, shape)
        return
    if results:
        require_results(results_of(module, shape), results)
        return
    outputs = outputs_in(result_of(module, shape))
    if classes and len(classes) != outputs:
        raise UsageError(f"There are {len(classes)} class names for {outputs} outputs.")


def _with_head(model: ir.Model, head: Head, features: Sequence[str]) -> tuple[Head, Head]:
    """Append a softmax if ``head`` is that and the network has none; return the file's head, and what was appended."""
    if features:
        return Head.LOGITS, Head.LOGITS
    own = head_of(model)
    if own is Head.SOFTMAX:  # compared as it is
        model.graph.outputs[0].name = PROBABILITIES
    elif head is Head.SOFTMAX:
        _append_softmax(model.graph)
        return Head.SOFTMAX, Head.SOFTMAX
    return own, Head.LOGITS


def _append_softmax(graph: ir.Graph) -> None:
    """Make the softmax of the graph's output its output instead, under its own name."""
    logits = graph.outputs[0]
    softmax = ir.node("Softmax", [logits], {"axis": 1})
    probabilities = softmax.outputs[0]
    probabilities.name, probabilities.shape, probabilities.type = PROBABILITIES, logits.shape, logits.type
    graph.append(softmax)
    graph.outputs[0] = probabilities
