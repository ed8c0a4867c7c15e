"""Options of the commands that work on devices, and the devices that they choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rexport.deploy.inventory import DeviceSelection

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
    "selection",
]

Addresses = Annotated[
    list[str] | None,
    typer.Argument(metavar="[USER@HOST[:PORT]]...", help="Devices; with --inventory, some of its.", show_default=False),
]
Inventory = Annotated[
    Path | None, typer.Option("--inventory", metavar="FILE.toml", help="A table [[device]] for each device.")
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
    typer.Option(metavar="FILE", help="The private key to log in with.", show_default="the usual ones and the agent's"),
]
KnownHosts = Annotated[
    Path | None,
    typer.Option("--known-hosts", metavar="FILE", help="The devices' host keys.", show_default="~/.ssh/known_hosts"),
]
ConnectTimeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait for a connection.")]
InstallTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=1, help="How long an installation may take, self-check included.")
]


def selection(
    addresses: list[str] | None,
    inventory: Path | None,
    groups: list[str] | None,
    *,
    root: str | None,
    python: str | None,
) -> DeviceSelection:
    """Return which devices the options choose."""
    from rexport.deploy.inventory import DeviceSelection

    return DeviceSelection(
        addresses=tuple(addresses or ()), inventory=inventory, groups=tuple(groups or ()), root=root, python=python
    )
