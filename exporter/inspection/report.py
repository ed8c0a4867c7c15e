"""The description of a file, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FileReport", "Table", "tensor_facts"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under ``columns``; those whose index is in ``left`` are left-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """The description of a file.

    Attributes:
        kind: ``onnx``, ``calibration`` …
        facts: Lines of a label and a text.
        tables: The parts of the file that are listed row by row.
        document: All of it as a JSON object.
    """

    kind: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    document: Mapping[str, Any]


def tensor_facts(inputs: Iterable[Mapping[str, Any]], outputs: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return a line for each input and output of an engine."""
    labelled = [*(("input", tensor) for tensor in inputs), *(("output", tensor) for tensor in outputs)]
    return [(label, "{name}: {dtype} {shape}".format(**tensor)) for label, tensor in labelled]
