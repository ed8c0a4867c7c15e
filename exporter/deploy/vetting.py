"""What a model has to be before devices get it: one ONNX file of standard operators, from pictures to scores or maps.

ONNX Runtime would run more: native code in ``EPContext`` nodes, operators of other domains and libraries, functions
that a file defines itself, weights in files beside it. A residual network needs none of it, and what is not there can't
be misused. What :func:`rexport.model_file.load` refuses is refused here too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from rexport._errors import ModelFileError
from rexport._onnx_proto import cause_of, scopes, tensors
from rexport.model_file import Metadata, load
from rexport.model_inputs import ImageInput, image_input
from rexport.quantization import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport.quantization import Target

__all__ = ["Quantization", "VettedModel", "vet"]

_STANDARD = {"", "ai.onnx"}
_FULL_RANGE = "±127"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a model was quantized, as its metadata says.

    Attributes:
        target: What it was quantized for; ``None`` if it does not say, or names no known target.
        full_range: Whether its weights use all 8 bits.
    """

    target: Target | None = None
    full_range: bool = True

    @classmethod
    def parse(cls, text: str) -> Quantization:
        """Read ``Metadata.quantization``."""
        try:
            described = json.loads(text)
            target, weights = str(described["target"]), str(described["weights"])
        except (ValueError, KeyError, TypeError):
            return cls()
        return cls(target=TARGETS.get(target), full_range=weights.endswith(_FULL_RANGE))

    @property
    def needs_exact_sums(self) -> bool:
        """Whether x86 processors without VNNI compute something else than others."""
        return self.full_range and (self.target is None or self.target.needs_vnni)


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

    @property
    def quantization(self) -> Quantization | None:
        """How it was quantized; ``None`` for a float model."""
        text = self.metadata.quantization
        return Quantization.parse(text) if text else None


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
    refusal = _why_refused(proto)
    if refusal is not None:
        raise ModelFileError(f"{path} {refusal}")
    image = image_input(model, path)
    return VettedModel(path=path, data=data, model=model, image=image, metadata=Metadata.of(model))


def _why_refused(proto: onnx.ModelProto) -> str | None:
    """Return what devices should not be given, as half a sentence."""
    if proto.functions:
        return (
            f"defines functions of its own ({proto.functions[0].name}), which a residual network does not need; write "
            "it without them with `rexport fuse`."
        )
    domains = {opset.domain for opset in proto.opset_import}
    domains |= {node.domain for scope in scopes(proto) for node in scope.node}
    foreign = sorted(domains - _STANDARD)
    if foreign:
        return (
            f"uses operators of {', '.join(foreign)}, for which a device needs code beyond the ONNX standard; export "
            "it again without them."
        )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors(proto)):
        return "keeps weights in other files, and a device gets one; write it as one with `rexport fuse`."
    return None
