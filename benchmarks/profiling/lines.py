"""What a runtime's profile says, before anybody knows what it is in the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Line", "Measured"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that a runtime executes.

    Attributes:
        kernel: What the runtime calls it: ``QLinearConv``, ``brgconv_avx512_I8`` …
        operator: The operator of ONNX that it computes, where the runtime tells; ``layout change`` for a reordering of
            a tensor in memory that the runtime put there.
        precision: Of what it reads: ``int8``, ``float32`` …
        nodes: Places in the graph of the nodes that it was made from, as far as the runtime tells.
        seconds: Of one call.
    """

    kernel: str
    operator: str | None
    precision: str
    nodes: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A profile: its lines in the order they run, and the seconds of a whole call while profiling."""

    lines: tuple[Line, ...]
    call_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Measured:
        """Read what :meth:`to_json` wrote."""
        lines = tuple(Line(**{**line, "nodes": tuple(line["nodes"])}) for line in document["lines"])
        return cls(lines=lines, call_seconds=document["call_seconds"])
