"""``rexport devices``: what devices run, rolling them back, and the agent's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli import _fleet
from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.jobs.devices import DevicesRequest

__all__ = ["EXAMPLES", "devices"]

EXAMPLES = {
    "status": (
        "rexport devices status pi@camera-1 pi@camera-2:2222",
        "rexport devices status --inventory devices.toml --group canary",
        "rexport devices status --inventory devices.toml --json",
    ),
    "rollback": (
        "rexport devices rollback pi@camera-2",
        "rexport devices rollback --inventory devices.toml --group canary --dry-run",
        "rexport devices rollback --inventory devices.toml --parallel 20",
    ),
    "agent": (
        "rexport devices agent",
        "rexport devices agent -o /media/usb/rexport-agent.pyz",
        "rexport devices agent --json",
    ),
}

devices = typer.Typer(
    help="What devices run; roll them back; the agent's file.", no_args_is_help=True, rich_markup_mode=None
)


@devices.command()
def status(
    addresses: _fleet.Addresses = None,
    inventory: _fleet.Inventory = None,
    group: _fleet.Group = None,
    as_json: Json = False,
    parallel: _fleet.Parallel = 8,
    root: _fleet.Root = None,
    python: _fleet.Python = None,
    identity: _fleet.Identity = None,
    known_hosts: _fleet.KnownHosts = None,
    connect_timeout: _fleet.ConnectTimeout = 20.0,
) -> None:
    """Show what devices run, and the outcome of the last installation.

    The exit code is 6 if any device failed or was unreachable.
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the active and the previous versions, and change nothing.")
    ] = False,
    as_json: Json = False,
    parallel: _fleet.Parallel = 8,
    root: _fleet.Root = None,
    python: _fleet.Python = None,
    identity: _fleet.Identity = None,
    known_hosts: _fleet.KnownHosts = None,
    connect_timeout: _fleet.ConnectTimeout = 20.0,
    install_timeout: _fleet.InstallTimeout = 900.0,
) -> None:
    """Roll devices back to their previous version, after a self-check of it.

    If the self-check fails, the active version stays. The exit code is 6 if any device failed or was unreachable.
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


@devices.command()
def agent(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.pyz", help="The file to write.")] = Path(
        "rexport-agent.pyz"
    ),
    as_json: Json = False,
) -> None:
    """Write the agent's file, for devices that you set up without SSH.

    It needs Python 3.8 or later and the openssl command there, and what runs the model.
    """
    from rexport.cli._console import print_json, say
    from rexport.jobs.device_agent import DeviceAgentRequest, run

    result = run(DeviceAgentRequest(output=output))
    if as_json:
        print_json(result.to_json())
        return
    print(f"{result.file}: {result.size / 1000:.0f} kB, SHA-256 {result.sha256}")
    say(
        "Next: copy it to the device together with your public key and a bundle, and type there "
        f"`python3 {output.name} key add KEY.pub.pem` and `python3 {output.name} install BUNDLE.rxb`."
    )


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
