"""Devices on the command line: which they are, how to come to them, and how it goes with each."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import DeviceError, UsageError
from rexport.cli._paths import READ

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from rexport.deploy.inventory import Device
    from rexport.deploy.rollout import Access, Outcome, Pace, Report, Result, Step, Visit
    from rexport.deploy.ssh import Connection

__all__ = [
    "Addresses",
    "ConnectTimeout",
    "Group",
    "Identity",
    "InstallTimeout",
    "Inventory",
    "KnownHosts",
    "Parallel",
    "Python",
    "Root",
    "access_of",
    "choose_devices",
    "note_reasons",
    "require_no_failures",
    "roll_out",
    "version_of",
]

Addresses = Annotated[
    list[str] | None,
    typer.Argument(metavar="[USER@HOST[:PORT]]...", help="Devices; with --inventory, some of its.", show_default=False),
]
Inventory = Annotated[
    Path | None, READ, typer.Option("--inventory", metavar="FILE.toml", help="A table [[device]] for each device.")
]
Group = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Only devices in it; repeatable.")]
Parallel = Annotated[int, typer.Option(min=1, help="So many devices at a time.")]
Root = Annotated[
    str | None, typer.Option(metavar="DIR", help="rexport's folder on the devices.", show_default="/var/lib/rexport")
]
Python = Annotated[
    str | None, typer.Option(metavar="NAME", help="The devices' Python, 3.8 or later.", show_default="python3")
]
Identity = Annotated[
    Path | None,
    READ,
    typer.Option(metavar="FILE", help="The private key to log in with.", show_default="the usual ones and the agent's"),
]
KnownHosts = Annotated[
    Path | None,
    READ,
    typer.Option("--known-hosts", metavar="FILE", help="The devices' host keys.", show_default="~/.ssh/known_hosts"),
]
ConnectTimeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait for a connection.")]
InstallTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=1, help="How long an installation may take, self-check included.")
]


def choose_devices(
    addresses: Sequence[str],
    *,
    inventory: Path | None,
    groups: Sequence[str],
    root: str | None,
    python: str | None,
) -> tuple[Device, ...]:
    """Return the devices that were named, each once.

    Raises:
        UsageError: There are none, one stands there twice, or an address is none.
        InputError: The inventory can't be used.
    """
    from rexport.deploy.inventory import load_inventory, override, parse_address, select

    if inventory is None:
        if groups:
            raise UsageError("--group chooses from an inventory; name it with --inventory.")
        chosen = tuple(map(parse_address, addresses))
    else:
        chosen = select(load_inventory(inventory), groups)
        if addresses:
            chosen = tuple(_named(address, chosen, inventory) for address in addresses)
    if not chosen:
        raise UsageError("No device is named; write user@host, or --inventory FILE.toml.")
    chosen = tuple(override(device, root=root, python=python) for device in chosen)
    for index, device in enumerate(chosen):
        if device.place in [other.place for other in chosen[:index]]:
            raise UsageError(f"{device} is named twice.")
    return chosen


def _named(address: str, devices: Sequence[Device], inventory: Path) -> Device:
    found = [device for device in devices if address in (device.host, str(device))]
    if len(found) != 1:
        how = "is in no table" if not found else f"is in {len(found)} tables"
        raise UsageError(f"{address} {how} of {inventory} that is chosen from; write it as it stands there.")
    return found[0]


def access_of(
    *, identity: Path | None, known_hosts: Path | None, connect_timeout: float, install_timeout: float
) -> Access:
    """Return how to come to the devices."""
    from rexport.deploy.rollout import Access
    from rexport.deploy.ssh import Limits, Login

    return Access(
        login=Login(identity=identity, known_hosts=known_hosts),
        limits=Limits(connect=connect_timeout, install=install_timeout),
    )


def roll_out(
    devices: Sequence[Device],
    work: Callable[[Visit, Connection], Awaitable[Outcome]],
    *,
    access: Access,
    pace: Pace,
) -> tuple[Result, ...]:
    """Do ``work`` on the devices, and show on stderr how it goes.

    Raises:
        InputError: A file of the log-in can't be used.
        UnavailableError: asyncssh is not installed.
    """
    import asyncio

    from rexport.cli import _console
    from rexport.deploy import rollout

    for place in access.login.read_known_hosts().passed_over:
        _console.note(f"{place}: no host key can be read there; the line is passed over.")
    with _shown(devices) as report:
        return asyncio.run(rollout.roll_out(devices, work, access=access, pace=pace, report=report))


def require_no_failures(results: Sequence[Result], what: str) -> None:
    """Raise if a device has failed, or was not come to.

    Raises:
        DeviceError: So it is; the message says how many.
    """
    failed = [result for result in results if result.outcome.is_failure]
    left = sum(result.outcome == "not started" for result in results)
    if not failed and not left:
        return
    rest = f", {left} were not begun" if left else ""
    first = f" {_reason_of(failed[0])}" if failed else ""
    raise DeviceError(f"{what} failed on {len(failed)} of {len(results)} devices{rest}.{first}")


def note_reasons(results: Sequence[Result]) -> None:
    """Say on stderr what each device has to say, but the first that failed: the command's error is about that one."""
    from rexport.cli import _console

    first = next((result for result in results if result.outcome.is_failure), None)
    for result in results:
        if result.reason is not None and result is not first:
            _console.note(_reason_of(result))


def version_of(folder: str | None) -> str:
    """Return name and version of what is installed in a device's ``folder``, without the hash behind them."""
    return "" if folder is None else folder.rpartition("-")[0]


def _reason_of(result: Result) -> str:
    reason, device = result.reason or "", str(result.device)
    return reason if device in reason else f"{device}, {result.step}: {reason}"


@dataclass
class _Lines:
    """Says each step in a line of its own."""

    width: int

    def step(self, device: Device, step: Step, detail: str = "") -> None:
        self._say(device, f"{step} {detail}".rstrip())

    def sent(self, device: Device, sent: int, size: int) -> None:
        """Say nothing: lines in a log are for steps."""

    def finished(self, result: Result) -> None:
        self._say(result.device, f"{result.outcome} ({result.seconds:.1f} s)")

    def _say(self, device: Device, text: str) -> None:
        print(f"{device!s:<{self.width}}  {text}", file=sys.stderr, flush=True)


class _Bars:
    """Shows a bar for each device that is being worked on."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[Device, Any] = {}

    def step(self, device: Device, step: Step, detail: str = "") -> None:
        if device not in self._tasks:
            self._tasks[device] = self._progress.add_task("", total=None, device=str(device), amount="")
        self._progress.update(self._tasks[device], description=f"{step} {detail}".rstrip(), total=None, amount="")

    def sent(self, device: Device, sent: int, size: int) -> None:
        amount = f"{sent / 2**20:.1f} of {size / 2**20:.1f} MiB"
        self._progress.update(self._tasks[device], completed=sent, total=size, amount=amount)

    def finished(self, result: Result) -> None:
        self._progress.remove_task(self._tasks.pop(result.device))
        self._progress.console.print(f"{result.device}  {result.outcome} ({result.seconds:.1f} s)", highlight=False)


@contextmanager
def _shown(devices: Sequence[Device]) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield _Lines(max(len(str(device)) for device in devices))
        return
    columns = (
        TextColumn("{task.fields[device]}", markup=False),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)
