"""What a model has to be before devices get it: one ONNX file of standard operators, from pictures to scores.

ONNX Runtime would run more: native code in ``EPContext`` nodes, operators of other domains and libraries, functions
that a file defines itself, weights in files beside it. A residual network needs none of it, and what is not there can't
be misused. What :func:`rexport.model_file.load` refuses is refused here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from rexport._errors import ModelFileError
from rexport._onnx_proto import cause_of
from rexport.model_file import ImageInput, Metadata, image_input, load

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

__all__ = ["VettedModel", "vet"]

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class VettedModel:
    """A model that may go to devices.

    Attributes:
        path: Where it was read.
        data: The bytes of its file.
        model: As rexport holds it.
        image: Its input.
        metadata: What rexport wrote into it.
    """

    path: Path
    data: bytes
    model: ir.Model
    image: ImageInput
    metadata: Metadata


def vet(path: Path) -> VettedModel:
    """Read a model for devices.

    Raises:
        ModelFileError: It is none, or has what devices should not be given.
    """
    model = load(path)
    try:
        data = path.read_bytes()
        proto = onnx.load_from_string(data)
    except Exception as error:  # protobuf's own errors share no public base class
        raise ModelFileError(f"{path} can't be read: {cause_of(error)}.") from error
    why = _why_refused(proto)
    if why is not None:
        raise ModelFileError(f"{path} {why}")
    metadata = Metadata.of(model)
    if metadata.features:
        raise ModelFileError(
            f"{path} gives features ({', '.join(metadata.features)}), and a bundle is for a classifier, whose scores "
            "devices compare; export it without --features."
        )
    if len(model.graph.outputs) != 1:
        names = ", ".join(str(value.name) for value in model.graph.outputs)
        raise ModelFileError(f"{path} has {len(model.graph.outputs)} outputs ({names}), and a classifier has one.")
    return VettedModel(path=path, data=data, model=model, image=image_input(model, path), metadata=metadata)


def _why_refused(proto: onnx.ModelProto) -> str | None:
    """Return what devices should not be given, as half a sentence."""
    if proto.functions:
        return (
            f"defines functions of its own ({proto.functions[0].name}), which a residual network does not need; write "
            "it without them with `rexport fuse`."
        )
    domains = {one.domain for one in proto.opset_import} | {node.domain for node in _nodes(proto.graph)}
    foreign = sorted(domain for domain in domains if domain not in _STANDARD)
    if foreign:
        return (
            f"uses operators of {', '.join(foreign)}, for which a device needs code beyond the ONNX standard; export "
            "it again without them."
        )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(proto.graph)):
        return "keeps weights in other files, and a device gets one; write it as one with `rexport fuse`."
    return None


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found, waiting = [], [graph]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for node in one.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    return found


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for one in _graphs(graph) for node in one.node]


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    tensors = [tensor for one in _graphs(graph) for tensor in one.initializer]
    for node in _nodes(graph):
        for attribute in node.attribute:
            tensors += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
    return tensors
