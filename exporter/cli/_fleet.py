"""Options of the commands that work on devices, and the devices that they select."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rexport.deploy.inventory import DeviceSelection

__all__ = [
    "Addresses",
    "BatchSize",
    "ConnectTimeout",
    "Group",
    "Identity",
    "InstallTimeout",
    "Inventory",
    "KnownHosts",
    "MaxFailures",
    "Parallel",
    "Python",
    "Root",
    "selection",
]

_ROLLOUT, _SSH, _THERE = "Rollout", "SSH", "On the device"

Addresses = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="USER@HOST[:PORT]", help="Devices; with --inventory, a selection of its devices.", show_default=False
    ),
]
Inventory = Annotated[
    Path | None,
    typer.Option("--inventory", metavar="FILE.toml", help="A list of devices: a [[device]] table each."),
]
Group = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME", help="Only the inventory's devices in this group; repeatable."),
]
Parallel = Annotated[int, typer.Option(min=1, help="Devices to work on at once.", rich_help_panel=_ROLLOUT)]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Devices in a batch; the next one starts when all of them are finished.",
        show_default="as --parallel",
        rich_help_panel=_ROLLOUT,
    ),
]
MaxFailures = Annotated[
    int, typer.Option(min=0, help="Start no further batch after more failures than this.", rich_help_panel=_ROLLOUT)
]
Root = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="rexport's folder there.", show_default="/var/lib/rexport", rich_help_panel=_THERE
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The Python to use there, 3.8 or later.", show_default="python3", rich_help_panel=_THERE
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The private key to log in with.",
        show_default="your default keys and the SSH agent's",
        rich_help_panel=_SSH,
    ),
]
KnownHosts = Annotated[
    Path | None,
    typer.Option(
        "--known-hosts",
        metavar="FILE",
        help="The devices' host keys.",
        show_default="~/.ssh/known_hosts",
        rich_help_panel=_SSH,
    ),
]
ConnectTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit for a connection.", rich_help_panel=_SSH)
]
InstallTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=1,
        help="Time limit for an installation, self-check included.",
        rich_help_panel=_SSH,
    ),
]


def selection(
    addresses: list[str] | None,
    inventory: Path | None,
    groups: list[str] | None,
    *,
    root: str | None,
    python: str | None,
) -> DeviceSelection:
    """Return the devices that the options select."""
    from rexport.deploy.inventory import DeviceSelection

    return DeviceSelection(
        addresses=tuple(addresses or ()), inventory=inventory, groups=tuple(groups or ()), root=root, python=python
    )
