"""Modules and functions of the user's, by the names that options give them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import UsageError
from rexport._words import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["function_named", "import_user_module"]


def import_user_module(name: str) -> ModuleType:
    """Import a module, which may lie in the folder that the command runs in, as for ``python -m``.

    Raises:
        UsageError: It can't be imported.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"The module {name} can't be imported: {first_line(error).rstrip('.')}.") from error
    except Exception as error:  # whatever a module of the user's raises
        raise UsageError(
            f"The module {name} can't be imported: {type(error).__name__}: {first_line(error).rstrip('.')}."
        ) from error


def function_named(reference: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names.

    Raises:
        UsageError: There is none.
    """
    module_name, _, name = reference.partition(":")
    if not (module_name and name):
        raise UsageError(f"{reference}: name a function as module:function.")
    function = getattr(import_user_module(module_name), name, None)
    if not callable(function):
        raise UsageError(f"{reference}: the module has no function {name!r}.")
    return function  # type: ignore[no-any-return]
