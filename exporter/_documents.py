"""Documents that outlive a process, read strictly into the frozen dataclass that each of them is.

Types and bounds stand at the fields (``Annotated[int, Meta(ge=1)]``), and msgspec checks them. Keys that a record does
not have are left alone, as later versions may add some.
"""

from __future__ import annotations

import sys
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from rexport._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Count", "Finite", "Natural", "Positive", "Sha256", "as_record", "load_json", "load_toml"]

_LARGEST = sys.float_info.max  # infinity is no measurement

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

_T = TypeVar("_T")


def load_json(path: Path) -> Any:
    """Return the values of a JSON file.

    Raises:
        InputError: It can't be read, or is not JSON.
    """
    return _load(path, msgspec.json.decode, "JSON")


def load_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file; raises as :func:`load_json`."""
    values: dict[str, Any] = _load(path, tomllib.loads, "TOML")
    return values


def as_record(values: object, kind: type[_T], *, where: object, advice: str) -> _T:
    """Return the values of a document as a record of ``kind``.

    Args:
        values: As parsed from JSON or TOML.
        kind: A dataclass.
        where: The document's name, for errors.
        advice: What to do about a broken one, for errors.

    Raises:
        InputError: A field is missing, or holds what it can't.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = f"{place.strip('.`')}: " if place else ""
        raise InputError(f"{where}: {field}{message[0].lower()}{message[1:]}; {advice}.") from error


def _load(path: Path, parse: Callable[[str], Any], language: str) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text.") from error
    except (ValueError, RecursionError) as error:  # integers of thousands of digits are a ValueError too
        raise InputError(f"{path} is not {language}: {error}.") from error
