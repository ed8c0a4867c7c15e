"""TensorRT's real parser and compiler, which TensorRT for RTX brings along and which need no GPU.

What a build made of each layer is in its log alone, at the highest verbosity: the text is nowhere documented, so what
can't be read is an error and not an empty answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rexport.model_file import to_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

_TYPE = re.compile(r"Datatype: (\w+)")
_SOURCE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_LINE = re.compile(
    r"Name: (?P<name>[^,]+), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: [^,]*, StreamId: \d+,(?: EventId: \d+,)? Metadata:(?P<sources>.*)"
)
# layers that multiply: everything else is elementwise, pooling or copying
_PRODUCTS = ("correlation", "gemm", "deconvolution", "conv", "deconv", "convolution")


@dataclass(frozen=True, kw_only=True)
class BuiltLayer:
    """A layer of an engine: its ``kind``, its tensors' types, and the ONNX nodes (``sources``) that went into it."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    sources: frozenset[str]


def build_engine(model: ir.Model, *, batch: int = 1) -> tuple[BuiltLayer, ...]:
    """Return the layers of the engine built of ``model``; what the parser refuses is an ``AssertionError``."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to try what TensorRT makes of a file")
    logger = _logger(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    parsed = parser.parse(to_bytes(model))
    assert parsed, "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
    config = builder.create_builder_config()
    config.profiling_verbosity = rtx.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        shape = [batch if size == -1 else size for size in tensor.shape]
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, "\n".join(logger.errors)
    return _layers(logger.messages)


def types_of_products(layers: tuple[BuiltLayer, ...], nodes: set[str]) -> dict[str, str]:
    """Return for each of the ``nodes``, which multiply, the type of the tensor that its layer reads first."""
    types = {source: layer.inputs[0] for layer in layers if layer.kind in _PRODUCTS for source in layer.sources & nodes}
    assert set(types) == nodes, f"the log names no layer of {sorted(nodes - set(types))}"
    return types


def _layers(messages: list[str]) -> tuple[BuiltLayer, ...]:
    lines = [line for message in messages for line in message.splitlines() if "LayerType: " in line]
    found = [_LINE.match(line.strip()) for line in lines]
    assert found, "the build log lists no layers"
    assert all(found), next(line for line, match in zip(lines, found, strict=True) if match is None)
    return tuple(
        BuiltLayer(
            name=match["name"],
            kind=match["kind"],
            inputs=tuple(_TYPE.findall(match["inputs"])),
            constants=tuple(_TYPE.findall(match["constants"])),
            outputs=tuple(_TYPE.findall(match["outputs"])),
            sources=frozenset(_SOURCE.findall(match["sources"])),
        )
        for match in found
        if match is not None
    )


def _logger(rtx: Any) -> Any:
    class Logger(rtx.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append(message)
            if severity <= rtx.ILogger.ERROR:
                self.errors.append(message)

    return Logger()
