"""What is known of a file, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileReport", "Table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under ``columns``; those whose index is in ``left`` are left-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a file is.

    Attributes:
        kind: ``onnx``, ``calibration`` …
        facts: Lines of a label and what it says.
        tables: What there is a row for each of.
        document: All of it as JSON can hold it.
    """

    kind: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    document: Mapping[str, Any]
