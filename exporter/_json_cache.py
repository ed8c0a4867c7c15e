"""Measurements, kept in a JSON file from one run to the next.

The file is a cache: deleting it costs a minute, and entries that can't be read are measured again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rexport._errors import OutputError
from rexport._files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["JsonCache"]


class JsonCache:
    """Entries of JSON under the facts that they depend on, in a file.

    Args:
        path: Its folder is made when there is something to keep.
        schema: What the file says it holds; one that says otherwise is not read.
        check: Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError`` for an entry that is none.
    """

    def __init__(self, path: Path, *, schema: str, check: Callable[[Any], object]) -> None:
        self._path, self._schema, self._check = path, schema, check

    def find(self, facts: dict[str, Any]) -> Any:
        """Return the entry under exactly these facts; ``None`` if there is none."""
        return self._read().get(_key(facts))

    def keep(self, facts: dict[str, Any], entry: Any) -> None:
        """Add an entry, or replace it; where there is no room for it, it is simply not kept."""
        entries = self._read() | {_key(facts): entry}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps({"schema": self._schema, "entries": entries}, indent=1) + "\n")
        except (OSError, OutputError):
            return

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if document["schema"] != self._schema:
                return {}
            entries: dict[str, Any] = document["entries"]
            for entry in entries.values():
                self._check(entry)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        return entries


def _key(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
