"""The keys of a JSON object, each read as what it has to be, so that an error names the key and what stands there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["FieldError", "Fields"]


class FieldError(ValueError):
    """A key holds something else than it should."""


class Fields:
    """A JSON object at a place in a document; a key that is missing reads as null."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise FieldError(f"{where or 'the document'} is {_shown(value)}, not an object")
        self._values: Mapping[Any, Any] = value
        self._where = where

    def names(self) -> tuple[str, ...]:
        """Return the keys, in order."""
        return tuple(str(name) for name in self._values)

    def text(self, key: str) -> str | None:
        """Return a string, or ``None`` for null."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def name(self, key: str) -> str:
        """Return a string that must be there."""
        value = self.text(key)
        if value is None:
            raise self._wrong(key, "a text")
        return value

    def number(self, key: str) -> float | None:
        """Return a finite number, or ``None`` for null."""
        value = self._values.get(key)
        return None if value is None else self._number(key, value)

    def count(self, key: str) -> int:
        """Return a whole number from one on that must be there."""
        value = self._values.get(key)
        if type(value) is not int or value < 1:
            raise self._wrong(key, "a whole number from 1 on")
        return value

    def flag(self, key: str) -> bool | None:
        """Return true or false, or ``None`` for null."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of finite numbers; null is an empty one."""
        return tuple(self._number(key, value) for value in self._list(key))

    def counts(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers from zero on; null is an empty one."""
        values = self._list(key)
        if any(type(value) is not int or value < 0 for value in values):
            raise self._wrong(key, "a list of whole numbers")
        return tuple(values)

    def interval(self, key: str) -> tuple[float, float] | None:
        """Return the two ends of an interval, or ``None`` for null."""
        if self._values.get(key) is None:
            return None
        ends = self.numbers(key)
        if len(ends) != 2 or ends[0] > ends[1]:
            raise self._wrong(key, "a low and a high end")
        return ends[0], ends[1]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; null is an empty one."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(key, "a list of texts")
        return tuple(values)

    def inner(self, key: str) -> Fields | None:
        """Return an object, or ``None`` for null."""
        value = self._values.get(key)
        return None if value is None else Fields(value, self._place(key))

    def objects(self, key: str) -> tuple[Fields, ...]:
        """Return a list of objects; null is an empty one."""
        return tuple(Fields(value, f"{self._place(key)}[{i}]") for i, value in enumerate(self._list(key)))

    def scalar(self, key: str) -> str | None:
        """Return a string, number or truth value in words, and ``None`` for all else: what is only to be shown."""
        value = self._values.get(key)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return str(value) if isinstance(value, (str, int, float)) else None

    def _list(self, key: str) -> list[Any]:
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            raise self._wrong(key, "a list")
        return list(value)

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(key, "a finite number")
        return number

    def _wrong(self, key: str, expected: str) -> FieldError:
        return FieldError(f"{self._place(key)} is {_shown(self._values.get(key))}, not {expected}")

    def _place(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
