"""How long work reports its progress, and what the user should know."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Advance", "Note", "Progress", "progress_bar", "silent", "unsaid"]


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, steps: int, *, now: str = "") -> None:
        """Add finished steps, and say what is being done ``now``, where that is known."""
        ...


class Progress(Protocol):
    """Opens a progress bar: ``with progress("calibrating", 512) as advance: ... advance(32)``."""

    def __call__(self, description: str, total: int | None) -> AbstractContextManager[Advance]:
        """Return a context manager that yields the function to call with the number of finished steps."""
        ...


class Note(Protocol):
    """Tells the user something, in a sentence: ``note("only 8 images to calibrate with.")``."""

    def __call__(self, message: str, /) -> None:
        """Tell it."""
        ...


def unsaid(message: str, /) -> None:
    """The note that nobody reads."""


@contextmanager
def silent(description: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG001
    """The progress that shows nothing."""

    def advance(steps: int, *, now: str = "") -> None:
        pass

    yield advance


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    """Show a bar with an ETA on a terminal (stderr), or in a notebook that has ipywidgets, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text, eta = TextColumn("{task.description}"), TextColumn("eta")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), eta, TimeRemainingColumn())
    console = Console(stderr=True)
    is_shown = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar:
        task = bar.add_task(description, total=total)

        def advance(steps: int, *, now: str = "") -> None:
            bar.update(task, advance=steps, description=f"{description}: {now}" if now else None)

        yield advance
