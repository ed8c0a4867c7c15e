"""A newer opset by ONNX's own version converter, proven: it silently changes what some operators compute.

    operator                     in the newer opset
    Upsample, Resize 10          Resize 11 and later places its samples elsewhere, and rounds to others
    Hardmax before opset 13      works along one axis, and not along all from that one to the last

The first has an equal form in the newer opset, and gets it. For all others, and those not listed, both models are run
on the same inputs; where they differ, the model is refused, and the operator named.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import ModelFileError, RexportError, VerificationError
from rexport.model_file import default_opset, with_opset
from rexport.passes._graph import constant, is_op, name_of
from rexport.passes.fold_constants import FoldConstants
from rexport.passes.verify import Reference

__all__ = ["raise_opset"]

_RESIZE_NAMES_ITS_COORDINATES = 11


def raise_opset(model: ir.Model, at_least: int, *, reference: Reference | None = None) -> ir.Model:
    """Return the model with operators of version ``at_least`` or later: itself, or a converted copy that is equal.

    The copy has no Constant nodes: its constants are initializers.

    Args:
        model: The model.
        at_least: The opset that is needed.
        reference: The results of ``model``, if they have been computed already.

    Raises:
        ModelFileError: It has no operators of ONNX itself, ONNX can't convert it, or it does not run.
        VerificationError: The converted model computes something else.
    """
    if default_opset(model) >= at_least:
        return model
    original = model.clone()
    common.InlinePass()(original)  # the converter drops functions
    converted = with_opset(original, at_least)
    if default_opset(original) < _RESIZE_NAMES_ITS_COORDINATES <= at_least:
        for node in converted.graph.all_nodes():
            if is_op(node, "Resize"):
                _place_samples_as_before(node)
    FoldConstants()(converted)
    if reference is None:
        try:
            reference = Reference(model)
        except ModelFileError as error:
            raise ModelFileError(
                f"{error} So its conversion from opset {default_opset(model)} to {at_least} can't be proven; export it "
                f"again with opset {at_least} or later."
            ) from error
    _prove(original, converted, reference)
    return converted


def _place_samples_as_before(resize: ir.Node) -> None:
    """Let a Resize compute the same as Upsample and Resize 10 in ONNX Runtime (``upsample.cc``).

    Sample i of the result is at i / scale, rounded down where the picture becomes larger, and up where it becomes
    smaller.
    """
    resize.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    if resize.attributes.get_string("mode", "nearest") == "nearest":
        scales = constant(resize.inputs[2])
        becomes_smaller = scales is not None and bool((scales < 1).any())
        resize.attributes.add(ir.AttrString("nearest_mode", "ceil" if becomes_smaller else "floor"))


def _prove(original: ir.Model, converted: ir.Model, reference: Reference) -> None:
    start, end = default_opset(original), default_opset(converted)
    try:
        differences = reference.differences(converted)
    except VerificationError as error:
        raise VerificationError(
            f"ONNX's converter from opset {start} to {end} breaks this model, which has "
            f"{_rewritten(original, start, end)}; export it again with opset {end} or later."
        ) from error
    if all(difference <= reference.tolerance for difference in differences.values()):
        return
    changed = _first_that_differs(original, converted) or _rewritten(original, start, end)
    raise VerificationError(
        f"ONNX's converter from opset {start} to {end} changes this model's results, at {changed}; export "
        f"it again with opset {end} or later."
    )


def _rewritten(model: ir.Model, start: int, end: int) -> str:
    """Return the operators of the model that changed between two opsets."""
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == ""}
    rewritten = [op_type for op_type in sorted(used) if _since(op_type, start) != _since(op_type, end)]
    return ", ".join(rewritten) or "no operator that changed between them"


def _since(op_type: str, opset: int) -> int | None:
    """Return the opset in which an operator got its form of ``opset``, ``None`` if there is no such operator."""
    try:
        return int(onnx.defs.get_schema(op_type, opset).since_version)
    except onnx.defs.SchemaError:
        return None


def _first_that_differs(original: ir.Model, converted: ir.Model) -> str:
    """Return the first operator, as they run, whose result differs, and its name; empty if that can't be told."""
    old, new = _exposed(original), _exposed(converted)
    names = [str(value.name) for value in old.graph.outputs if value.name in {v.name for v in new.graph.outputs}]
    for model in (old, new):
        values = {value.name: value for value in model.graph.outputs}
        model.graph.outputs[:] = [values[name] for name in names]
    try:
        reference = Reference(old)
        differences = reference.differences(new)
    except RexportError:
        return ""
    differing = (value for value in old.graph.outputs if not differences[str(value.name)] <= reference.tolerance)
    nodes = filter(None, (value.producer() for value in differing))
    return next((f"{node.op_type} ({name_of(node)})" for node in nodes), "")


def _exposed(model: ir.Model) -> ir.Model:
    """Return a copy whose outputs are all tensors of a known type, in the order they are computed."""
    copy = model.clone()
    common.ShapeInferencePass()(copy)
    computed = (value for node in copy.graph for value in node.outputs)
    copy.graph.outputs[:] = [value for value in computed if value.type is not None and value.shape is not None]
    return copy
