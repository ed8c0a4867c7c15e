"""JSON that is read strictly: no key twice, no number that JSON has not, and every value of the kind it has to be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import BundleError

if TYPE_CHECKING:
    import re
    from collections.abc import Collection

__all__ = ["Fields", "loads"]


def loads(name: str, data: bytes) -> Any:
    """Return what the JSON document called ``name`` says.

    Raises:
        BundleError: It is not JSON in UTF-8, or has a key twice.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise BundleError(f"{name} is not strict JSON: {error}.") from error


@dataclass(frozen=True)
class Fields:
    """An object of a ``document``, whose values are checked as they are taken; ``name`` is what errors call it."""

    document: str
    name: str
    values: Any

    def require_keys(self, keys: set[str]) -> None:
        if not isinstance(self.values, dict):
            raise BundleError(f"{self.document}: {self.name.rstrip('.') or 'the document'} is not an object.")
        for what, some in (("lacks", keys - set(self.values)), ("has the unknown", set(self.values) - keys)):
            if some:
                raise BundleError(f"{self.document} {what} {self.name}{min(some)}; make the bundle again.")

    def inner(self, key: str) -> Fields:
        return Fields(self.document, f"{self.name}{key}.", self.values[key])

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.values[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(key)
        return value

    def file(self, key: str, files: Collection[str]) -> str:
        value = self.values[key]
        if not isinstance(value, str) or value not in files:
            raise self.wrong(key, "is not among its files")
        return value

    def optional_file(self, key: str, files: Collection[str]) -> str | None:
        return None if self.values[key] is None else self.file(key, files)

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.values[key]
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"has to be a whole number from {least} to {most}")
        return value

    def number(self, key: str, *, above: float) -> float:
        value = self.values[key]
        if not _is_finite(value) or value <= above:
            raise self.wrong(key, f"has to be a number above {above:g}")
        return float(value)

    def three(self, key: str, *, above: float) -> None:
        numbers = self.items(key, 3)
        if len(numbers) != 3 or not all(_is_finite(one) and one > above for one in numbers):
            raise self.wrong(key, f"has to be three numbers above {above:g}")

    def truth(self, key: str) -> bool:
        value = self.values[key]
        if type(value) is not bool:
            raise self.wrong(key, "has to be true or false")
        return value

    def items(self, key: str, most: int) -> list[Any]:
        value = self.values[key]
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(key, f"has to be a list of {most} at most")
        return value

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        items = self.items(key, 16)
        if not all(isinstance(item, str) and pattern.fullmatch(item) for item in items):
            raise self.wrong(key)
        return tuple(items)

    def wrong(self, key: str, why: str = "won't do") -> BundleError:
        return BundleError(f"{self.document}: {self.name}{key} is {_short(self.values[key])}, which {why}.")


def _is_finite(value: Any) -> bool:
    """Say whether a value is a number that a float holds; JSON's integers can be longer."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
