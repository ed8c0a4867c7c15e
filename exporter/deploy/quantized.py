"""What a quantized file says of itself that matters for where it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.quantization import TARGETS

if TYPE_CHECKING:
    from rexport.model_file import Metadata
    from rexport.quantization import Target

__all__ = ["QuantizedFile"]

_FULL_WEIGHTS = "±127"


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """What ``Metadata.quantization`` says.

    Attributes:
        target: That it was quantized for; ``None`` if it does not say, or it is none that is known.
        full_range: Whether its weights use all 8 bits.
    """

    target: Target | None
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
            return cls(target=None, full_range=True)
        return cls(target=TARGETS.get(target), full_range=weights.endswith(_FULL_WEIGHTS))

    @property
    def needs_exact_sums(self) -> bool:
        """Whether x86 processors without VNNI compute something else than others."""
        return self.full_range and (self.target is None or self.target.needs_vnni)
