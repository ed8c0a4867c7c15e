"""Which parameters of commands name what is read and what is written, and the check that the two are apart.

Every parameter that may name a file bears a role::

    table: Annotated[Path | None, READ, typer.Option("--table")]

``exporter.cli`` wraps each command in :func:`kept_apart`, which acts before the command does; the command itself has
nothing to do. A test fails for a parameter without a role.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["READ", "READ_IMAGES", "WRITE", "Reads", "ReadsImages", "Writes", "kept_apart"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_STDOUT = "-"  # where text takes the place of a file's name


@dataclass(frozen=True)
class Reads:
    """Marks what names a file to read, or a folder of which all is read; text that names no file is something else."""


@dataclass(frozen=True)
class ReadsImages:
    """Marks what names a data set, or a folder of one; whatever else lies in it may be written."""


def _nothing(path: Path) -> tuple[Path, ...]:  # noqa: ARG001  # the type of ``Writes.beside``
    return ()


@dataclass(frozen=True)
class Writes:
    """Marks what names a file or a folder to write; with a file come those that ``beside`` gives for it."""

    beside: Callable[[Path], tuple[Path, ...]] = _nothing


READ, READ_IMAGES, WRITE = Reads(), ReadsImages(), Writes()


def kept_apart(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return ``command``, which does nothing if a file that it is to write is one that it is to read.

    Raises:
        UsageError: So it is.
    """

    @functools.wraps(command)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        _check(command, kwargs)
        return command(*args, **kwargs)

    return checked


def _check(command: Callable[..., Any], values: dict[str, Any]) -> None:
    from rexport._apart import require_apart

    outputs: list[Path] = []
    inputs: list[Path] = []
    images: list[Path] = []
    for name, hint in get_type_hints(command, include_extras=True).items():
        for role in getattr(hint, "__metadata__", ()):
            given = _listed(values.get(name))
            if isinstance(role, Writes):
                for path in (Path(item) for item in given if item != _STDOUT):
                    outputs += [path, *role.beside(path)]
            elif isinstance(role, Reads):  # text may name a network, and a folder may have the same name
                inputs += [Path(item) for item in given if isinstance(item, Path) or Path(item).is_file()]
            elif isinstance(role, ReadsImages):
                images += map(Path, given)
    require_apart(outputs, inputs, images=images)


def _listed(value: Path | str | Sequence[Path | str] | None) -> Sequence[Path | str]:
    return [value] if isinstance(value, Path | str) else value or ()
