"""``rexport deploy``: install a signed bundle on devices over SSH, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli import _fleet
from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.jobs.deploy import DeployResult

__all__ = ["EXAMPLES", "deploy"]

EXAMPLES = (
    "rexport deploy resnet50-3.rxb pi@camera-1 --trust private.pub.pem",
    "rexport deploy resnet50-3.rxb --inventory devices.toml --group canary --dry-run",
    "rexport deploy resnet50-3.rxb --inventory devices.toml --batch-size 20 --max-failures 1",
)

_OTHER_TOOLS = "Other tools"


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file or folder that `rexport bundle` wrote.")],
    addresses: _fleet.Addresses = None,
    inventory: _fleet.Inventory = None,
    group: _fleet.Group = None,
    trust: Annotated[
        Path | None,
        typer.Option(metavar="KEY.pem", help="First, make the devices trust this public key.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check whether it would work on each device, and change nothing.")
    ] = False,
    as_json: Json = False,
    parallel: _fleet.Parallel = 8,
    batch_size: _fleet.BatchSize = None,
    max_failures: _fleet.MaxFailures = 0,
    root: _fleet.Root = None,
    python: _fleet.Python = None,
    identity: _fleet.Identity = None,
    known_hosts: _fleet.KnownHosts = None,
    connect_timeout: _fleet.ConnectTimeout = 20.0,
    install_timeout: _fleet.InstallTimeout = 900.0,
    ansible: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write an Ansible role and playbook instead.",
            show_default=False,
            rich_help_panel=_OTHER_TOOLS,
        ),
    ] = None,
    mender: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a Mender update module instead.",
            show_default=False,
            rich_help_panel=_OTHER_TOOLS,
        ),
    ] = None,
) -> None:
    """Install a bundle on devices over SSH.

    Each device verifies the bundle, runs a self-check, switches to the new version atomically, and rolls back
    automatically if that fails. If a connection breaks, run the command again: it resumes. Host keys must be
    known. The exit code is 6 if any device failed or was unreachable.
    """
    from rexport.cli._console import note, print_json
    from rexport.cli._fleet_report import show_steps
    from rexport.deploy.rollout import Pace
    from rexport.deploy.ssh import Access
    from rexport.jobs.deploy import DeployRequest, run

    request = DeployRequest(
        bundle=bundle,
        devices=_fleet.selection(addresses, inventory, group, root=root, python=python),
        access=Access(
            identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout, install_timeout=install_timeout
        ),
        pace=Pace(parallel=parallel, batch_size=batch_size or parallel, max_failures=max_failures),
        trust=trust,
        dry_run=dry_run,
        ansible=ansible,
        mender=mender,
    )
    with show_steps() as report:
        result = run(request, report=report, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    result.require_success()


def _print(result: DeployResult) -> None:
    from rexport.cli._console import print_table, say
    from rexport.cli._fleet_report import note_reasons, version_of
    from rexport.cli._reports import or_dash

    ansible, mender, manifest = result.request.ansible, result.request.mender, result.bundle.manifest
    for path in result.files:
        print(path)
    if ansible is not None:
        say(f"Next: ansible-playbook -i {ansible / 'inventory.yml'} {ansible / 'deploy.yml'}")
    elif mender is not None:
        say(f"Next: see {mender / 'README.md'}")
    else:
        rows = [
            (
                str(device.device),
                str(device.outcome),
                version_of(device.active),
                or_dash(device.sent_bytes / 2**20 or None, ".1f", none=""),
                or_dash(device.seconds or None, ".1f", none=""),
            )
            for device in result.devices
        ]
        columns = ("device", "outcome", "active", "MiB sent", "seconds")
        print_table(columns, rows, title=f"{manifest.name} version {manifest.version}", left=(0, 1, 2))
        note_reasons(result.devices)
