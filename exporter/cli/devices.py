"""``rexport devices``: what devices run, and the way back to the version before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli import _fleet
from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.jobs.devices import DevicesRequest

__all__ = ["devices"]

devices = typer.Typer(
    help="What devices run, and the way back to the version before.", no_args_is_help=True, rich_markup_mode=None
)


@devices.command()
def status(
    addresses: _fleet.Addresses = None,
    inventory: _fleet.Inventory = None,
    group: _fleet.Group = None,
    parallel: _fleet.Parallel = 8,
    root: _fleet.Root = None,
    python: _fleet.Python = None,
    identity: _fleet.Identity = None,
    known_hosts: _fleet.KnownHosts = None,
    connect_timeout: _fleet.ConnectTimeout = 20.0,
    as_json: Json = False,
) -> None:
    """Show what devices run, and what became of the last installation.

    If a device can't be reached, the exit code is 6.
    """
    from rexport.deploy.ssh import Access
    from rexport.jobs.devices import DevicesRequest

    request = DevicesRequest(
        devices=_fleet.selection(addresses, inventory, group, root=root, python=python),
        access=Access(identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout),
        parallel=parallel,
    )
    _run(request, as_json=as_json)


@devices.command()
def rollback(
    addresses: _fleet.Addresses = None,
    inventory: _fleet.Inventory = None,
    group: _fleet.Group = None,
    parallel: _fleet.Parallel = 8,
    root: _fleet.Root = None,
    python: _fleet.Python = None,
    identity: _fleet.Identity = None,
    known_hosts: _fleet.KnownHosts = None,
    connect_timeout: _fleet.ConnectTimeout = 20.0,
    install_timeout: _fleet.InstallTimeout = 900.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what devices run, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Have devices go back to the version before, which they check first.

    Where that fails, the active version stays. If it failed on any device, the exit code is 6.
    """
    from rexport.deploy.ssh import Access
    from rexport.jobs.devices import DevicesRequest

    request = DevicesRequest(
        devices=_fleet.selection(addresses, inventory, group, root=root, python=python),
        access=Access(
            identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout, install_timeout=install_timeout
        ),
        parallel=parallel,
        rollback=True,
        dry_run=dry_run,
    )
    _run(request, as_json=as_json)


def _run(request: DevicesRequest, *, as_json: bool) -> None:
    from rexport.cli._console import note, print_json, print_table
    from rexport.cli._fleet_report import note_reasons, show_steps, version_of
    from rexport.jobs.devices import run

    with show_steps() as report:
        result = run(request, report=report, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        rows = [
            (
                str(device.device),
                str(device.outcome),
                version_of(device.active),
                version_of(device.previous),
                _in_words(device.answer.get("runtime"), "{name} {version}"),
                _in_words(device.answer.get("last"), "{verb} of {version} {result}, {time:.16}"),
            )
            for device in result.devices
        ]
        columns = ("device", "outcome", "active", "previous", "runtime", "last change (UTC)")
        print_table(columns, rows, left=range(len(columns)))
        note_reasons(result.devices)
    result.require_success()


def _in_words(facts: Any, words: str) -> str:
    """Return what an agent says, where it says it; another version of it may not."""
    try:
        return words.format(**facts)
    except (KeyError, TypeError):
        return ""
