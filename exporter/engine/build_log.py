"""The layers of an engine, read from the log of its build.

Without a GPU an engine can't be loaded and inspected. But at the highest verbosity TensorRT's log lists every layer
with the types of its tensors and the ONNX nodes that went into it. Its format is undocumented: a line that can't be
read is an error, not an empty result, and ``KNOWN_VERSIONS`` names the versions whose format is known.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import VerificationError
from rexport._words import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["KNOWN_VERSIONS", "SOURCE", "BuiltLayer", "layers_of_log", "types_of_products"]

KNOWN_VERSIONS = ("1.7.",)  # of TensorRT for RTX
_TYPE = re.compile(r"Datatype: (\w+)")
SOURCE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
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
    sources: tuple[str, ...]

    @property
    def multiplies(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return self.kind in _PRODUCTS

    def to_json(self) -> dict[str, Any]:
        """Return the layer as a JSON object."""
        return asdict(self)


def layers_of_log(messages: Iterable[str]) -> tuple[BuiltLayer, ...]:
    """Return the layers that a build's log lists, in order.

    Raises:
        VerificationError: There are none, or one can't be read.
    """
    lines = [line.strip() for message in messages for line in message.splitlines() if "LayerType: " in line]
    if not lines:
        raise VerificationError("TensorRT's log lists no layers, so their precision is unknown.")
    return tuple(map(_layer, lines))


def types_of_products(layers: Iterable[BuiltLayer], nodes: Iterable[str]) -> Mapping[str, str]:
    """Return for each of the ``nodes``, which multiply, the type of the tensor that its layer reads first.

    Raises:
        VerificationError: No layer names one of them.
    """
    names = set(nodes)
    types = {
        source: layer.inputs[0] for layer in layers if layer.multiplies for source in layer.sources if source in names
    }
    missing = sorted(names - set(types))
    if missing:
        raise VerificationError(f"TensorRT's log names no layer for {first_few(missing)}, so its precision is unknown.")
    return types


def _layer(line: str) -> BuiltLayer:
    match = _LINE.match(line)
    if match is None:
        raise VerificationError(
            f"A line of TensorRT's log can't be parsed, so a layer's precision is unknown: {line[:200]}"
        )
    return BuiltLayer(
        name=match["name"],
        kind=match["kind"],
        inputs=tuple(_TYPE.findall(match["inputs"])),
        constants=tuple(_TYPE.findall(match["constants"])),
        outputs=tuple(_TYPE.findall(match["outputs"])),
        sources=tuple(dict.fromkeys(SOURCE.findall(match["sources"]))),
    )
