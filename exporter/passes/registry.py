"""The passes by their names: rexport's own, and those that other packages register.

A package registers a pass in its ``pyproject.toml``, and it runs after rexport's own:

    [project.entry-points."rexport.passes"]
    FuseMyStem = "my_package.passes:FuseMyStem"
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from rexport._errors import UnavailableError, UsageError
from rexport._words import did_you_mean
from rexport.passes._base import GraphPass
from rexport.passes.fuse import DEFAULT_PASSES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

__all__ = ["available_passes", "choose_passes"]

_GROUP = "rexport.passes"


def available_passes() -> dict[str, type[GraphPass]]:
    """Return all passes by name, in the order they run.

    Raises:
        UnavailableError: A pass that another package registers can't be loaded, or its name is used already.
    """
    passes = {one_pass.__name__: one_pass for one_pass in DEFAULT_PASSES}
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        loaded = _load(entry)
        if loaded.__name__ in passes:
            raise UnavailableError(f"{_origin(entry)} registers a pass {loaded.__name__}, and there is one already.")
        passes[loaded.__name__] = loaded
    return passes


def choose_passes(*, only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[type[GraphPass], ...]:
    """Return the passes to run, in the order they run.

    Args:
        only: The names of the passes to run; by default all.
        skip: The names of passes to leave out.

    Raises:
        UsageError: There is no such pass; the message suggests the nearest name.
    """
    available = available_passes()
    for name in (*only, *skip):
        if name not in available:
            hint = did_you_mean(difflib.get_close_matches(name, available, n=1, cutoff=0.4))
            raise UsageError(f"There is no pass {name!r}.{hint} `rexport fuse --list` names them all.")
    return tuple(one_pass for name, one_pass in available.items() if (not only or name in only) and name not in skip)


def _load(entry: EntryPoint) -> type[GraphPass]:
    try:
        loaded = entry.load()
    except Exception as error:  # whatever the other package raises when it is imported
        raise UnavailableError(f"The pass {entry.name} of {_origin(entry)} can't be loaded: {error}.") from error
    if not (isinstance(loaded, type) and issubclass(loaded, GraphPass) and hasattr(loaded, "summary")):
        raise UnavailableError(f"{entry.value} of {_origin(entry)} is no pass: a GraphPass with a summary is.")
    return loaded


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
