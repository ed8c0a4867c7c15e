"""What the results of all jobs have in common: a JSON document, a line, and a table in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["JobResult", "Table"]


class Table(NamedTuple):
    """A table in words: the names of its ``columns``, and the cells of each of its ``rows``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class JobResult(ABC):
    """The result of a job."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the document that the command prints with ``--json``."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Return the main facts by name, each in a few words."""

    def as_table(self) -> Table | None:
        """Return the rows that the result consists of, if it consists of rows."""
        return None

    def __repr__(self) -> str:
        """Return the facts on one line."""
        return f"{type(self).__name__}({'; '.join(f'{name}: {text}' for name, text in self.facts().items())})"

    def _repr_html_(self) -> str:
        """Return the facts and the table as HTML, which notebooks show."""
        html = _html(Table((), list(self.facts().items())))
        table = self.as_table()
        return html if table is None else html + _html(table)


def _html(table: Table) -> str:
    head = _html_row("th", table.columns) if table.columns else ""
    return f"<table>{head}{''.join(_html_row('td', row) for row in table.rows)}</table>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
