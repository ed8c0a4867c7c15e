"""``rexport deploy``: a signed bundle onto devices over SSH, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from rexport.cli._paths import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.deploy.inventory import Device
    from rexport.deploy.remote import Cargo
    from rexport.deploy.rollout import Access, Pace, Result
    from rexport.deploy.signing import PublicKey

__all__ = ["deploy"]


def deploy(
    bundle: Annotated[
        Path, READ, typer.Argument(metavar="BUNDLE", help="What `rexport bundle` wrote: a file or a folder.")
    ],
    addresses: Addresses = None,
    inventory: Inventory = None,
    group: Group = None,
    parallel: Parallel = 8,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="A batch ends before the next begins.", show_default="as --parallel")
    ] = None,
    max_failures: Annotated[int, typer.Option(min=0, help="No further batch once more devices have failed.")] = 0,
    root: Root = None,
    python: Python = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    trust: Annotated[
        Path | None,
        READ,
        typer.Option(
            metavar="KEY.pem", help="First set-up: have the devices trust this public key.", show_default=False
        ),
    ] = None,
    connect_timeout: ConnectTimeout = 20.0,
    install_timeout: InstallTimeout = 900.0,
    ansible: Annotated[
        Path | None,
        WRITE,
        typer.Option(metavar="DIR", help="Write an Ansible role and playbook instead.", show_default=False),
    ] = None,
    mender: Annotated[
        Path | None,
        WRITE,
        typer.Option(metavar="DIR", help="Write a Mender update module instead.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the devices, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Install a bundle on devices over SSH.

    Each device verifies the bundle, tries it, switches to it in one step, and goes back by itself if that
    fails; a cut connection leaves it whole. Running the command again goes on where it ended. Host keys must
    be known. If any device failed or was not reached, the exit code is 6.
    """
    from rexport._errors import UsageError
    from rexport.cli import _fleet
    from rexport.deploy.remote import Cargo
    from rexport.deploy.rollout import Pace
    from rexport.deploy.signing import load_public_key

    if ansible is not None and mender is not None:
        raise UsageError("--ansible and --mender write two different things; name one.")
    devices: tuple[Device, ...] = ()
    if (ansible is None and mender is None) or addresses or inventory is not None:
        devices = _fleet.choose_devices(
            addresses or [], inventory=inventory, groups=group or [], root=root, python=python
        )
    inputs = [path for path in (bundle, inventory, trust) if path is not None]
    cargo = Cargo.load(bundle, trust=trust)
    key = None if trust is None else load_public_key(trust)
    if ansible is not None:
        _write_role(ansible, cargo, key, devices, root=root, python=python, inputs=inputs, as_json=as_json)
    elif mender is not None:
        _write_module(mender, cargo, key, root=root, python=python, inputs=inputs, as_json=as_json)
    else:
        access = _fleet.access_of(
            identity=identity, known_hosts=known_hosts, connect_timeout=connect_timeout, install_timeout=install_timeout
        )
        pace = Pace(parallel=parallel, batch_size=batch_size or parallel, max_failures=max_failures)
        _install(cargo, key, devices, access, pace, dry_run=dry_run, as_json=as_json)


def _install(
    cargo: Cargo,
    key: PublicKey | None,
    devices: tuple[Device, ...],
    access: Access,
    pace: Pace,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from rexport.cli import _fleet
    from rexport.deploy.installation import Installation
    from rexport.deploy.remote import AgentFile

    work = Installation(cargo=cargo, agent=AgentFile(), trust=key, dry_run=dry_run)
    results = _fleet.roll_out(devices, work, access=access, pace=pace)
    _show(cargo, results, dry_run=dry_run, as_json=as_json)
    _fleet.require_no_failures(results, "Looking" if dry_run else "Installing")


def _show(cargo: Cargo, results: Sequence[Result], *, dry_run: bool, as_json: bool) -> None:
    from collections import Counter

    from rexport.cli import _console, _fleet

    if as_json:
        _console.print_json(
            {
                "schema": "rexport.deploy/1",
                "bundle": cargo.to_json(),
                "dry_run": dry_run,
                "counts": Counter(str(result.outcome) for result in results),
                "devices": [result.to_json() for result in results],
            }
        )
        return
    rows = [
        (
            str(result.device),
            str(result.outcome),
            _fleet.version_of(result.active),
            f"{result.sent_bytes / 2**20:.1f}" if result.sent_bytes else "",
            f"{result.seconds:.1f}" if result.seconds else "",
        )
        for result in results
    ]
    title = f"{cargo.name} version {cargo.version}"
    _console.print_table(("device", "outcome", "active", "MiB sent", "seconds"), rows, title=title, left=(0, 1, 2))
    _fleet.note_reasons(results)


def _write_role(
    folder: Path,
    cargo: Cargo,
    key: PublicKey | None,
    devices: tuple[Device, ...],
    *,
    root: str | None,
    python: str | None,
    inputs: Sequence[Path],
    as_json: bool,
) -> None:
    from rexport.deploy.ansible import write_role
    from rexport.deploy.remote import AgentFile

    written = write_role(
        folder, cargo=cargo, agent=AgentFile(), key=key, devices=devices, root=root, python=python, inputs=inputs
    )
    how = f"ansible-playbook -i {folder / 'inventory.yml'} {folder / 'deploy.yml'}"
    _show_written(cargo, written, how, as_json=as_json)


def _write_module(
    folder: Path,
    cargo: Cargo,
    key: PublicKey | None,
    *,
    root: str | None,
    python: str | None,
    inputs: Sequence[Path],
    as_json: bool,
) -> None:
    from rexport.deploy.inventory import Device, override
    from rexport.deploy.mender import write_module
    from rexport.deploy.remote import AgentFile

    device = override(Device(host="device"), root=root, python=python)
    written = write_module(
        folder, cargo=cargo, agent=AgentFile(), key=key, root=device.root, python=device.python, inputs=inputs
    )
    _show_written(cargo, written, f"see {folder / 'README.md'}", as_json=as_json)


def _show_written(cargo: Cargo, written: Sequence[Path], how: str, *, as_json: bool) -> None:
    from rexport.cli import _console

    if as_json:
        files = [str(path) for path in written]
        _console.print_json({"schema": "rexport.deploy-files/1", "bundle": cargo.to_json(), "files": files})
    else:
        print("\n".join(map(str, written)))
        _console.say(f"Next: {how}")
