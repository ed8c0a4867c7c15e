"""``rexport devices``: what devices run, and the way back to the version before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._fleet import (
    Addresses,
    ConnectTimeout,
    Group,
    Identity,
    InstallTimeout,
    Inventory,
    KnownHosts,
    Parallel,
    Python,
    Root,
)
from rexport.cli._options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.deploy.rollout import Result

__all__ = ["devices"]

devices = typer.Typer(
    help="What devices run, and the way back to the version before.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@devices.command()
def status(
    addresses: Addresses = None,
    inventory: Inventory = None,
    group: Group = None,
    parallel: Parallel = 8,
    root: Root = None,
    python: Python = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    connect_timeout: ConnectTimeout = 20.0,
    as_json: Json = False,
) -> None:
    """Show what devices run, and what became of the last installation.

    If a device can't be reached, the exit code is 6.
    """
    from rexport.cli import _fleet
    from rexport.deploy.installation import ask_status
    from rexport.deploy.rollout import Pace

    chosen = _fleet.choose_devices(addresses or [], inventory=inventory, groups=group or [], root=root, python=python)
    access = _fleet.access_of(
        identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout, install_timeout=900.0
    )
    results = _fleet.roll_out(chosen, ask_status, access=access, pace=Pace(parallel=parallel))
    _show("rexport.devices/1", results, as_json=as_json)
    _fleet.require_no_failures(results, "Asking")


@devices.command()
def rollback(
    addresses: Addresses = None,
    inventory: Inventory = None,
    group: Group = None,
    parallel: Parallel = 8,
    root: Root = None,
    python: Python = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    connect_timeout: ConnectTimeout = 20.0,
    install_timeout: InstallTimeout = 900.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what devices run, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Have devices go back to the version before, which they check first.

    Where that fails, the active version stays. If it failed on any device, the exit code is 6.
    """
    from rexport.cli import _fleet
    from rexport.deploy.installation import ask_status, go_back
    from rexport.deploy.rollout import Pace

    chosen = _fleet.choose_devices(addresses or [], inventory=inventory, groups=group or [], root=root, python=python)
    access = _fleet.access_of(
        identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout, install_timeout=install_timeout
    )
    work = ask_status if dry_run else go_back
    results = _fleet.roll_out(chosen, work, access=access, pace=Pace(parallel=parallel))
    _show("rexport.devices-rollback/1", results, as_json=as_json, dry_run=dry_run)
    _fleet.require_no_failures(results, "Asking" if dry_run else "Rolling back")


def _show(schema: str, results: Sequence[Result], *, as_json: bool, **facts: Any) -> None:
    from rexport.cli import _console, _fleet

    if as_json:
        _console.print_json({"schema": schema, **facts, "devices": [result.to_json() for result in results]})
        return
    rows = [
        (
            str(result.device),
            str(result.outcome),
            _fleet.version_of(result.active),
            _fleet.version_of(result.previous),
            _in_words(result.answer.get("runtime"), "{name} {version}"),
            _in_words(result.answer.get("last"), "{verb} of {version} {result}, {time:.16}"),
        )
        for result in results
    ]
    columns = ("device", "outcome", "active", "previous", "runtime", "last change (UTC)")
    _console.print_table(columns, rows, left=range(len(columns)))
    _fleet.note_reasons(results)


def _in_words(facts: Any, words: str) -> str:
    """Return what an agent says, where it says it; another version of it may not."""
    try:
        return words.format(**facts) if isinstance(facts, dict) else ""
    except KeyError:
        return ""
