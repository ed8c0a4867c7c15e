"""ONNX files of ONNX Runtime that hold an engine: their ``EPContext`` nodes, read without running them.

An execution provider writes what it compiled as a node of the operator ``EPContext``, of the domain ``com.microsoft``.
With ``embed_mode`` 1 its attribute ``ep_cache_context`` is the engine itself, with 0 the path of the engine's file,
from the ONNX file's folder. Such a file is an engine like any other: native code of one version for certain GPUs.

Source: ONNX Runtime's EP Context design document, and what the provider for TensorRT writes in version 1.31
(``embed_mode``, ``ep_cache_context``, ``hardware_architecture``, ``onnx_model_filename``). That provider compiles whole
models; of one that it splits, its file may hold the last part alone, which is why inputs and outputs are compared.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import onnx

from rexport._errors import EngineFileError, GateError, VerificationError
from rexport._onnx_proto import scopes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["CompiledPart", "ContextFile", "holds_engine", "read_context_file", "require_compiled"]

OPERATOR, DOMAIN = "EPContext", "com.microsoft"
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


@dataclass(frozen=True, kw_only=True)
class CompiledPart:
    """The part of a model that was compiled into an ``EPContext`` node.

    Attributes:
        name: Of the node.
        inputs: The names of the tensors that it reads.
        outputs: Of those that it computes.
        embedded: Whether the engine is in the node.
        main: Whether the node has an engine of its own; otherwise it shares that of a node that has.
        engine_file: The engine's file, from the folder of the ONNX file; ``None`` where it is embedded, or shared.
        bytes: The size of the engine; 0 where it is shared.
        hardware: The GPU's compute capability, as the provider writes it; empty where it does not.
        sdk_version: The compiler's version, likewise.
        source: Who made it, likewise.
        partition: The name of the part, likewise.
        onnx: The name of the file that it was compiled from, likewise.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    embedded: bool
    main: bool
    engine_file: str | None
    bytes: int
    hardware: str
    sdk_version: str
    source: str
    partition: str
    onnx: str

    def to_json(self) -> dict[str, Any]:
        """Return the part as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ContextFile:
    """An ONNX file that holds engines.

    Attributes:
        parts: What was compiled.
        outside: The operators that were not, and how many nodes of each there are.
        inputs: Name, dtype and shape of each, ``-1`` for an open size.
        outputs: Likewise.
    """

    parts: tuple[CompiledPart, ...]
    outside: dict[str, int]
    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]

    @property
    def outside_in_words(self) -> str:
        """The operators that were not compiled, as a list for people; empty if there are none."""
        return ", ".join(f"{count} {operator}" for operator, count in self.outside.items())


def holds_engine(path: Path) -> bool:
    """Say whether a file is an ONNX file with an ``EPContext`` node; what can't be read as one is none."""
    if OPERATOR.encode() not in path.read_bytes():
        return False
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own errors share no public base class
        return False
    return any(map(_is_compiled, _nodes(proto)))


def read_context_file(path: Path) -> ContextFile:
    """Read an ONNX file that holds engines, and check that they are there.

    Raises:
        EngineFileError: It is no ONNX file, holds no engine, or an engine is missing, empty, or outside of its folder.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise EngineFileError(f"{path} can't be read: {error.strerror}.") from error
    except Exception as error:  # protobuf's own errors share no public base class
        raise EngineFileError(f"{path} is not an ONNX file, so it holds no engine.") from error
    nodes = list(_nodes(proto))
    parts = tuple(_part(node, path) for node in nodes if _is_compiled(node))
    if not parts:
        raise EngineFileError(
            f"{path} holds no engine: it has no node of {DOMAIN}'s {OPERATOR}; build it again with `rexport engine "
            "--backend onnxruntime`."
        )
    if not any(part.main for part in parts):
        raise EngineFileError(
            f"{path} holds no engine: each of its {OPERATOR} nodes refers to another; build it again."
        )
    stored = {tensor.name for tensor in proto.graph.initializer}
    return ContextFile(
        parts=parts,
        outside=dict(Counter(node.op_type for node in nodes if not _is_compiled(node)).most_common()),
        inputs=tuple(_tensor(value) for value in proto.graph.input if value.name not in stored),
        outputs=tuple(map(_tensor, proto.graph.output)),
    )


def require_compiled(
    written: ContextFile, *, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]
) -> None:
    """Check that a file holds the whole model: the same inputs and outputs, and all layers that multiply.

    Args:
        written: The file that was written.
        inputs: Those of the model that it was compiled from, as :attr:`ContextFile.inputs`.
        outputs: Likewise.

    Raises:
        VerificationError: It takes or gives something else.
        GateError: A layer that multiplies stayed outside of the engine.
    """
    for side, expected, actual in (("inputs", inputs, written.inputs), ("outputs", outputs, written.outputs)):
        if _named(expected) != _named(actual):
            raise VerificationError(
                f"The {side} of the file that ONNX Runtime wrote are {_in_words(actual)}, and the model's are "
                f"{_in_words(expected)}: only a part was compiled, and nothing was written; build with "
                "--backend tensorrt."
            )
    outside = {operator: count for operator, count in written.outside.items() if operator in _PRODUCTS}
    if outside:
        listed = ", ".join(f"{count} {operator}" for operator, count in outside.items())
        raise GateError(
            f"{listed} stayed outside of the engine, and would run elsewhere; nothing was written. Quantize with "
            "`rexport quantize --target tensorrt`, or build with --backend tensorrt, which says why."
        )


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for scope in scopes(proto):
        yield from scope.node


def _is_compiled(node: onnx.NodeProto) -> bool:
    return node.op_type == OPERATOR and node.domain == DOMAIN


def _part(node: onnx.NodeProto, path: Path) -> CompiledPart:
    integers = {attribute.name: attribute.i for attribute in node.attribute}
    strings = {attribute.name: attribute.s for attribute in node.attribute}
    engine = strings.pop("ep_cache_context", b"")
    texts = {name: text.decode(errors="replace") for name, text in strings.items()}
    main, embedded = (integers.get(name, 1) == 1 for name in ("main_context", "embed_mode"))
    name = node.name or node.output[0]
    if main and not engine:
        raise EngineFileError(f"The node {name} of {path} holds no engine: its ep_cache_context is empty; build again.")
    file: str | None = None
    size = 0
    if main and embedded:
        size = len(engine)
    elif main:
        file = _beside(engine.decode(errors="replace"), name, path)
        size = (path.parent / file).stat().st_size
    return CompiledPart(
        name=name,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        embedded=embedded,
        main=main,
        engine_file=file,
        bytes=size,
        hardware=texts.get("hardware_architecture", ""),
        sdk_version=texts.get("ep_sdk_version", ""),
        source=texts.get("source", ""),
        partition=texts.get("partition_name", ""),
        onnx=texts.get("onnx_model_filename", ""),
    )


def _beside(file: str, name: str, path: Path) -> str:
    """Return the path of an engine's file, which must be one in the folder of the ONNX file, or below."""
    outside = any(kind(file).is_absolute() or ".." in kind(file).parts for kind in (PurePosixPath, PureWindowsPath))
    if outside:
        raise EngineFileError(f"The node {name} of {path} names an engine outside of its folder, {file}; don't run it.")
    with suppress(OSError, ValueError):
        if (path.parent / file).stat().st_size > 0:
            return file
    raise EngineFileError(f"The engine of the node {name} of {path} is not beside it: {file}; copy it there too.")


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.TensorProto.DataType.Name(kind.elem_type).lower(),
        "shape": [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim],
    }


def _named(tensors: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(tensor["name"], tensor["dtype"], *tensor["shape"]) for tensor in tensors}


def _in_words(tensors: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{tensor['name']}: {tensor['dtype']} {tensor['shape']}" for tensor in tensors) or "none"
