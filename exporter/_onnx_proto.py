"""Defects of ONNX files that the checker lets pass, and facts that other exporters leave out."""

from __future__ import annotations

from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LARGEST",
    "TOO_LARGE",
    "cause_of",
    "complete_shapes",
    "external_names",
    "name_nodes",
    "read_all_tensors",
    "scopes",
    "tensors",
    "why_not_readable",
]

LARGEST = 2**31 - 1  # bytes: protobuf's limit
TOO_LARGE = "{:.1f} GiB of weights, and one ONNX file, as rexport writes it, holds 2 at most."


def why_not_readable(proto: onnx.ModelProto) -> str | None:
    """Return, as half a sentence, why rexport can't read a file that the checker lets pass; ``None`` if it can."""
    size = sum(_size_outside(tensor) for tensor in tensors(proto))
    if size > LARGEST:
        return f"has {TOO_LARGE.format(size / 2**30)}"
    versions: dict[str, set[int]] = {}
    for imported in proto.opset_import:
        versions.setdefault(imported.domain or "ai.onnx", set()).add(imported.version)
    for domain, several in versions.items():
        if len(several) > 1:
            return f"is not a valid ONNX model: it names two versions of {domain}, {' and '.join(map(str, several))}."
    newest = onnx.defs.onnx_opset_version()
    if max(versions.get("ai.onnx", {0})) > newest:
        return f"is of opset {max(versions['ai.onnx'])}, and the newest that the package onnx knows is {newest}."
    if not proto.graph.output:
        return "is not a valid ONNX model: it has no outputs."
    for scope in scopes(proto):
        if any(_is_sparse(attribute) for node in scope.node for attribute in node.attribute) or (
            isinstance(scope, onnx.GraphProto) and scope.sparse_initializer
        ):
            return "holds sparse tensors, which rexport can't read; store its weights as dense ones."
        for node in scope.node:
            if node.op_type == "EPContext":
                return "holds a compiled engine (an EPContext node), not a model; use the model it came from."
        unreadable = next((name for name in _names_in(scope) if not isinstance(name, str)), None)
        if unreadable is not None:  # protobuf gives bytes then
            return f"is not a valid ONNX model: the name {unreadable!r} in it is not UTF-8."
    return None


def scopes(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield the graph, the functions, and the graphs inside of their nodes."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while waiting:
        scope = waiting.pop()
        yield scope
        for node in scope.node:
            for attribute in node.attribute:
                waiting += attribute.graphs
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the initializers of all graphs, and the tensors in attributes."""
    for scope in scopes(proto):
        if isinstance(scope, onnx.GraphProto):
            yield from scope.initializer
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _names_in(scope: onnx.GraphProto | onnx.FunctionProto) -> Iterator[object]:
    if isinstance(scope, onnx.GraphProto):
        values = (*scope.input, *scope.output, *scope.value_info, *scope.initializer)
        yield from (value.name for value in values)
    for node in scope.node:
        yield from (node.name, node.domain, node.op_type, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _is_sparse(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.HasField("sparse_tensor") or attribute.sparse_tensors)


def _size_outside(tensor: onnx.TensorProto) -> int:
    """Return the bytes that a tensor says it has in another file."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return 0
    try:
        item = ir.DataType(tensor.data_type).itemsize
    except (ValueError, TypeError):  # no type, or text; the checker and the loader will say so
        return 0
    return int(prod(max(size, 0) for size in tensor.dims) * item)


def external_names(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the files that hold tensors of a model, from its folder on."""
    return {
        entry.value
        for tensor in tensors(proto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def complete_shapes(proto: onnx.ModelProto) -> None:
    """Complete the shapes that other frameworks' exporters leave out, and ONNX Runtime does without.

    Sizes below zero become open, and an output without a shape gets the inferred one.

    Raises:
        ValueError: An input or output has no shape, and none can be inferred; or an input holds no number.
    """
    for scope in scopes(proto):
        if isinstance(scope, onnx.GraphProto):
            for value in (*scope.input, *scope.output, *scope.value_info):
                for size in value.type.tensor_type.shape.dim:
                    if size.dim_value < 0:
                        size.ClearField("dim_value")
    if any(_lacks_shape(value) for value in proto.graph.output):
        with suppress(onnx.shape_inference.InferenceError, RuntimeError):
            outputs = onnx.shape_inference.infer_shapes(proto).graph.output
            for value, inferred in zip(proto.graph.output, outputs, strict=True):
                value.type.CopyFrom(inferred.type)
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            if _lacks_shape(value):
                raise ValueError(f"the {kind} {value.name!r} has no shape, not even one of open sizes")
    defaults = {tensor.name for tensor in proto.graph.initializer}  # may be empty, as Resize's regions are
    for value in proto.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name not in defaults and any(size.HasField("dim_value") and not size.dim_value for size in sizes):
            raise ValueError(
                f"the input {value.name!r} has a size of 0, so it holds no number; export the model again with a "
                "batch of 1 or more, or an open one"
            )


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def name_nodes(model: ir.Model) -> None:
    """Give every node of a graph and the graphs inside a name that no other has; equal models get equal names.

    ONNX leaves names out, and lets them be equal to each other and to those of tensors; rexport and its users tell
    layers apart by them. The first of several nodes of a name keeps it, and one without gets that of its result.
    """
    nodes = list(model.graph.all_nodes())
    present, assigned = {node.name for node in nodes}, set[str]()
    for node in nodes:
        if not node.name or node.name in assigned:
            results = (value.name for value in node.outputs if value.name)
            base = name = node.name or next(results, node.op_type)
            count = 0
            while name in present or name in assigned:
                count += 1
                name = f"{base}_{count}"
            node.name = name
        assigned.add(node.name)


def read_all_tensors(model: ir.Model) -> None:
    """Raise ``ValueError`` for a tensor that does not fill its shape; the checker lets those pass that overfill it."""
    for graph in model.graphs():
        tensors = [value.const_value for value in graph.initializers.values()]
        for node in graph:
            tensors += [a.as_tensor() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
        for tensor in (tensor for tensor in tensors if tensor is not None):
            try:
                tensor.numpy()
            except ValueError as error:
                raise ValueError(f"the tensor {tensor.name!r} can't be read ({cause_of(error)})") from None


def cause_of(error: BaseException) -> str:
    """Return the message of an error, or of its first cause, on one line without the last full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = str(error).strip().split("\n\n")[0]
    return " ".join(message.split()).rstrip(".") or type(error).__name__
