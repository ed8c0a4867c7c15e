"""A PyTorch module becomes an ONNX model: exported, fused, proven equal, and labelled with its origin."""

from __future__ import annotations

import gc
import json
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import torch

from rexport._errors import InputError, UsageError, VerificationError
from rexport.classifier_head import head_of
from rexport.exporting._features import drop_copies, require_features, returning
from rexport.exporting._names import calls_in, name_after_modules
from rexport.exporting._opset import lower_to_17
from rexport.exporting._sizes import other_size, require_any_size
from rexport.exporting.parity import DEFAULT_TOLERANCE, PROBABILITIES, Parity, prove_parity
from rexport.model_file import Head, Metadata, default_opset, to_bytes
from rexport.model_inputs import image_input
from rexport.models.modules import in_one_line, outputs_in, result_of, unwrapped
from rexport.models.weights import state_dict_hash
from rexport.passes import FoldConstants, fuse
from rexport.passes.raw_image import with_raw_images
from rexport.passes.resize_in_graph import require_resizing, with_resize
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport.passes import PassReport
    from rexport.preprocessing import Preprocessing

__all__ = ["DEFAULT_OPSET", "OPSETS", "ExportResult", "export"]

# TensorRT 10.3, which JetPack 6 ships, reads opsets up to 20.
DEFAULT_OPSET = 20
# PyTorch's exporter writes opsets from 18 on; little changed between 17 and 18 (see _opset).
OPSETS = range(17, 24)
_DIRECT_FROM = 18
_RARELY = (100_000, 20, 100)


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The ``model``, the proof of its ``parity`` with the module, and the ``reports`` of the passes it went through."""

    model: ir.Model
    parity: Parity
    reports: tuple[PassReport, ...]


def export(
    module: torch.nn.Module,
    *,
    preprocessing: Preprocessing,
    network: str | None = None,
    classes: Sequence[str] = (),
    head: Head = Head.LOGITS,
    features: Sequence[str] = (),
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
        UsageError: The opset is not one of ``OPSETS``, or too old to resize; there is no such feature, or it comes with
            class names or a softmax; the network needs one size or another number of class names, does not run, or
            can't be exported; or the preprocessing lacks the size to resize to.
        InputError: PyTorch can't export the network.
        ModelFileError: Raw images were asked for, and not only convolutions read the images.
        VerificationError: The result is not valid ONNX, not of the opset, or not equal to the module.
    """
    if opset not in OPSETS:
        raise UsageError(f"Opset {opset} is not supported; choose one from {OPSETS[0]} to {OPSETS[-1]}.")
    if any_size and resize_in_graph:
        raise UsageError("--resize-in-graph takes pictures of any size already; leave --any-size out.")
    _require_head(head, features, classes)
    if resize_in_graph:
        require_resizing(preprocessing, opset)
    module = unwrapped(module)
    module.eval()
    preprocessing = replace(preprocessing, takes=Takes.NORMALISED, layout=None)  # until the passes below change it
    shape, size = preprocessing.input_shape, preprocessing.size
    _require_outputs(module, shape, features, classes)
    if any_size:
        require_any_size(module, shape)
    with returning(module, features), _collecting_rarely():
        program = _to_onnx(
            module,
            shape=(shape[0], *other_size(size)) if any_size else shape,
            outputs=features or ["logits"],
            batch=batch,
            any_size=any_size,
            opset=max(opset, _DIRECT_FROM),
        )
    model, source = program.model, program.exported_program
    assert source is not None
    if features:
        drop_copies(model)
    _own_weights(model)
    FoldConstants()(model)
    final_head, appended = _with_head(model, head, features)
    name_after_modules(model, module, calls_in(source))
    reports: tuple[PassReport, ...] = ()
    if fused:
        result = fuse(model)
        model, reports = result.model, result.reports
    if opset < _DIRECT_FROM:
        lower_to_17(model)
    if raw_image or resize_in_graph:
        model = with_raw_images(model, preprocessing)
    if resize_in_graph:
        model = with_resize(model)
    Metadata(
        network=network,
        preprocessing=Metadata.of(model).preprocessing or preprocessing,
        classes=tuple(classes),
        head=final_head,
        features=tuple(features),
        weights_sha256=state_dict_hash(module),
        versions=json.dumps({name: version(name) for name in ("rexport", "torch", "onnx", "onnxscript", "onnx-ir")}),
    ).write_to(model)
    _check(model, opset=opset, any_size=any_size)
    parity = prove_parity(module, model, size=size, head=appended, features=features, tolerance=tolerance)
    return ExportResult(model=model, parity=parity, reports=reports)


def _require_head(head: Head, features: Sequence[str], classes: Sequence[str]) -> None:
    if features and (classes or head is not Head.LOGITS):
        raise UsageError("Features have no classes and no softmax; export either features or a classifier.")
    if head is Head.LOG_SOFTMAX:
        raise UsageError(
            f"The head is {Head.LOGITS} or {Head.SOFTMAX}; {head} is kept only where the network ends in it."
        )


def _require_outputs(
    module: torch.nn.Module, shape: Sequence[int], features: Sequence[str], classes: Sequence[str]
) -> None:
    """Make sure that the network runs, and has these features or as many outputs as classes."""
    if features:
        require_features(module, features, shape)
        return
    outputs = outputs_in(result_of(module, shape))
    if classes and len(classes) != outputs:
        raise UsageError(f"There are {len(classes)} class names for {outputs} outputs.")


def _to_onnx(
    module: torch.nn.Module,
    *,
    shape: Sequence[int],
    outputs: Sequence[str],
    batch: int | None,
    any_size: bool,
    opset: int,
) -> torch.onnx.ONNXProgram:
    dynamic = {} if batch else {0: "batch"}
    if any_size:
        dynamic |= {2: "height", 3: "width"}
    # optimize=False: PyTorch's own optimization folds BatchNormalization too, without a report
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (torch.zeros(batch or 2, *shape),),
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=(dynamic,) if dynamic else None,
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # tracing and translation raise many kinds
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise InputError(
                f"PyTorch can't export the network ({in_one_line(cause)}); its control flow must not depend "
                "on the pixels, and its operators must exist in ONNX."
            ) from error
    assert program is not None
    return program


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


def _own_weights(model: ir.Model) -> None:
    """Copy the weights, which share the module's memory: training it further must not change the proven model."""
    for value in model.graph.initializers.values():
        shared = value.const_value
        if shared is not None:
            value.const_value = ir.Tensor(shared.numpy().copy(), dtype=shared.dtype, name=value.name)


def _check(model: ir.Model, *, opset: int, any_size: bool) -> None:
    if default_opset(model) != opset:
        raise VerificationError(f"PyTorch's exporter wrote opset {default_opset(model)} instead of {opset}.")
    if any_size and image_input(model).size is not None:
        raise VerificationError("PyTorch's exporter fixed the picture size to the example's.")
    try:
        onnx.checker.check_model(to_bytes(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The exported model is not valid ONNX: {error}") from error


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Let Python collect garbage a hundred times less often: the exporter makes millions of objects that stay.

    Exports of 110 to 560 layers took a sixth less time so, the deepest a quarter more memory.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings: the result is checked afterwards."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
