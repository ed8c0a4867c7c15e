"""JSON that is read strictly: no key twice, no number that JSON has not, and every value of the kind it has to be.

What is wrong is a ValueError, whose text names the value by its place in the document.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

if TYPE_CHECKING:
    import re
    from collections.abc import Collection

__all__ = ["Fields", "loads"]

_Value = TypeVar("_Value")


def loads(data: bytes) -> Any:
    """Return what a JSON document in UTF-8 says."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise ValueError(f"it is not strict JSON: {error}") from error


class Fields(NamedTuple):
    """An object of a document, whose ``values`` are checked as they are taken; ``name`` is what errors call it."""

    name: str
    values: Any

    def require_keys(self, keys: Collection[str]) -> None:
        """Raise if there is another key than these, or one of them is missing."""
        if not isinstance(self.values, dict):
            raise ValueError(f"{self.name.rstrip('.')} is not an object")
        for fault, names in (
            ("lacks", set(keys) - set(self.values)),
            ("has the unknown", set(self.values) - set(keys)),
        ):
            if names:
                raise ValueError(f"it {fault} {self.name}{min(names)}")

    def inner(self, key: str) -> Fields:
        """Return the object that is the value of a key."""
        return Fields(f"{self.name}{key}.", self.values[key])

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return a text that matches the pattern from end to end."""
        value = self.values[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(key)
        return value

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """Return a list of such texts."""
        items = self.items(key, 16)
        if not all(isinstance(item, str) and pattern.fullmatch(item) for item in items):
            raise self.wrong(key)
        return tuple(items)

    def file(self, key: str, files: Collection[str]) -> str:
        """Return the name of one of the files."""
        value = self.values[key]
        if not isinstance(value, str) or value not in files:
            raise self.wrong(key, "is not among its files")
        return value

    def optional(self, key: str, read: Callable[[str], _Value]) -> _Value | None:
        """Return what ``read`` makes of a key, unless its value is ``None``."""
        return None if self.values[key] is None else read(key)

    def whole(self, key: str, least: int, most: int) -> int:
        """Return a whole number between two others, both included."""
        value = self.values[key]
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"has to be a whole number from {least} to {most}")
        return value

    def number(self, key: str, *, above: float) -> float:
        """Return a number that is larger than another."""
        value = self.values[key]
        if not _is_finite(value) or value <= above:
            raise self.wrong(key, f"has to be a number above {above:g}")
        return float(value)

    def numbers(self, key: str, count: int, *, above: float) -> None:
        """Raise if a value is not so many numbers that are larger than another."""
        numbers = self.items(key, count)
        if len(numbers) != count or not all(_is_finite(number) and number > above for number in numbers):
            raise self.wrong(key, f"has to be {count} numbers above {above:g}")

    def sides(self, key: str, most: int) -> tuple[int, int]:
        """Return a height and a width; a square's are one number."""
        value = self.values[key]
        sides = value if isinstance(value, list) else [value, value]
        if len(sides) != 2 or not all(type(side) is int and 1 <= side <= most for side in sides):
            raise self.wrong(key, f"has to be a whole number from 1 to {most}, or two")
        return sides[0], sides[1]

    def truth(self, key: str) -> bool:
        """Return a truth value."""
        value = self.values[key]
        if type(value) is not bool:
            raise self.wrong(key, "has to be true or false")
        return value

    def items(self, key: str, most: int) -> list[Any]:
        """Return a list that is not longer than ``most``."""
        value = self.values[key]
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(key, f"has to be a list of {most} at most")
        return value

    def wrong(self, key: str, reason: str = "won't do") -> ValueError:
        """Return the error that says what a value is, and why not."""
        text = repr(self.values[key])
        short = text if len(text) <= 60 else f"{text[:57]}…"
        return ValueError(f"{self.name}{key} is {short}, which {reason}")


def _is_finite(value: Any) -> bool:
    """Say whether a value is a number that a float holds; JSON's integers can be longer."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
