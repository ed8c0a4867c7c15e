"""The inputs, outputs and metadata of a model file; an engine's are read from the file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport._errors import EngineFileError
from rexport.engine_file import facts_path, is_engine, read_facts
from rexport.model_file import load

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.engine_file import EngineFacts, EngineTensor

__all__ = ["described"]

_TYPES = {"float": "FLOAT", "half": "FLOAT16", "bool": "BOOL"}  # ONNX's names, where TensorRT's differ


def described(path: Path) -> ir.Model:
    """Return an ONNX file's model; for an engine, one without nodes that has its inputs, outputs and metadata.

    Raises:
        ModelFileError: It is no readable ONNX file.
        EngineFileError: No readable facts lie beside an engine.
    """
    return _of_engine(path, read_facts(path)) if is_engine(path) else load(path)


def _of_engine(path: Path, facts: EngineFacts) -> ir.Model:
    inputs = [_value(path, tensor) for tensor in facts.inputs]
    outputs = [_value(path, tensor) for tensor in facts.outputs]
    graph = ir.Graph(inputs, outputs, nodes=[], opset_imports={"": 18}, name=facts.onnx)
    return ir.Model(graph, ir_version=10, metadata_props=dict(facts.metadata))


def _value(path: Path, tensor: EngineTensor) -> ir.Value:
    kind = tensor["dtype"]
    try:
        dtype = ir.DataType[_TYPES.get(kind, kind.upper())]
    except KeyError:
        raise EngineFileError(
            f"{facts_path(path)} gives {tensor['name']} the unknown type {kind!r}; build the engine again."
        ) from None
    sizes = [None if size < 0 else size for size in tensor["shape"]]
    return ir.Value(name=tensor["name"], type=ir.TensorType(dtype), shape=ir.Shape(sizes))
