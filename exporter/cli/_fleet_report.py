"""Progress on devices: bars on a terminal, lines elsewhere, and the reasons of failures."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rexport.cli._console import note, say
from rexport.deploy.rollout import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import TaskID

    from rexport.deploy.inventory import Device
    from rexport.deploy.rollout import Result, Step

__all__ = ["note_reasons", "show_steps", "version_of"]


def note_reasons(results: Sequence[Result]) -> None:
    """Say on stderr why devices failed, but for the first: the command's error is about that one."""
    explanations = [result.explanation for result in results if result.outcome.is_failure]
    for text in explanations[1:]:
        note(str(text))


def version_of(folder: str | None) -> str:
    """Return name and version of what is installed in a device's ``folder``, without the hash behind them."""
    return (folder or "").rpartition("-")[0]


@contextmanager
def show_steps() -> Iterator[Report]:
    """Show on stderr what is being done on each device."""
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.fields[device]}", markup=False),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)


class _Lines(Report):
    """Says each step in a line of its own; how much was sent is not for logs."""

    def begin(self, devices: Sequence[Device]) -> None:
        self._width = max(len(str(device)) for device in devices)

    def step(self, device: Device, step: Step) -> None:
        self._say(device, str(step))

    def finished(self, result: Result) -> None:
        self._say(result.device, f"{result.outcome} ({result.seconds:.1f} s)")

    def _say(self, device: Device, text: str) -> None:
        say(f"{device!s:<{self._width}}  {text}")


class _Bars(Report):
    """Shows a bar for each device that is being worked on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Device, TaskID] = {}

    def step(self, device: Device, step: Step) -> None:
        if device not in self._tasks:
            self._tasks[device] = self._progress.add_task("", total=None, device=str(device), amount="")
        self._progress.update(self._tasks[device], description=str(step), total=None, amount="")

    def sent(self, device: Device, sent: int, size: int) -> None:
        amount = f"{sent / 2**20:.1f} of {size / 2**20:.1f} MiB"
        self._progress.update(self._tasks[device], completed=sent, total=size, amount=amount)

    def finished(self, result: Result) -> None:
        self._progress.remove_task(self._tasks.pop(result.device))
        self._progress.console.print(f"{result.device}  {result.outcome} ({result.seconds:.1f} s)", highlight=False)
