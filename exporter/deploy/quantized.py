"""What a quantized file says of itself that matters for where it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rexport.model_file import Metadata

__all__ = ["QuantizedFile", "machines_for", "runtimes_for"]

_MACHINES = {"x86": ("x86_64",), "openvino": ("x86_64",), "arm": ("aarch64",)}
_RUNTIMES = {"tensorrt": ("tensorrt", "rtx", "onnxruntime")}
_ALL_MACHINES = ("aarch64", "x86_64")
_FULL_WEIGHTS = "±127"


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """What ``Metadata.quantization`` says.

    Attributes:
        target: The name of the target that it was quantized for; empty if it does not say.
        full_range: Whether its weights use all 8 bits.
    """

    target: str
    full_range: bool

    @classmethod
    def of(cls, metadata: Metadata) -> QuantizedFile | None:
        """Return what a model says; ``None`` for a float model."""
        if metadata.quantization is None:
            return None
        try:
            described = json.loads(metadata.quantization)
            target, weights = str(described["target"]), str(described["weights"])
        except (ValueError, KeyError, TypeError):
            return cls(target="", full_range=True)
        return cls(target=target, full_range=weights.endswith(_FULL_WEIGHTS))

    @property
    def needs_exact_sums(self) -> bool:
        """Whether x86 processors without VNNI compute something else than others."""
        return self.target in ("x86", "openvino", "") and self.full_range


def machines_for(quantized: QuantizedFile | None) -> tuple[str, ...]:
    """Return the machines that a file is made for, as ``platform.machine()`` says."""
    return _ALL_MACHINES if quantized is None else _MACHINES.get(quantized.target, _ALL_MACHINES)


def runtimes_for(quantized: QuantizedFile | None) -> tuple[str, ...]:
    """Return the runtimes that a file is made for."""
    return ("onnxruntime",) if quantized is None else _RUNTIMES.get(quantized.target, ("onnxruntime",))
