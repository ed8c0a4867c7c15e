"""Some devices, and the machine that rolls out to them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport.deploy.inventory import Device
from tests.faults.ssh_device import Machine

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

__all__ = ["Site", "site"]


class Site:
    """Some devices, and the machine that talks to them: its key, and its file of host keys."""

    def __init__(self, folder: Path, count: int) -> None:
        import asyncssh

        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        client = asyncssh.generate_private_key("ssh-ed25519")
        self.identity, self.known_hosts = folder / "id", folder / "known_hosts"
        client.write_private_key(self.identity)
        client.write_public_key(folder / "clients")
        # the devices' python3 is this one
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.machines = [
            Machine(
                root=folder / f"device-{number}" / "rexport",
                host_key=asyncssh.generate_private_key("ssh-ed25519"),
                clients=folder / "clients",
                environment=dict(environment),
            )
            for number in range(count)
        ]
        for machine in self.machines:
            machine.root.parent.mkdir()
            self.do(machine.start())
        self.know_hosts()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the servers' loop."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def know_hosts(self) -> None:
        """Write the file of host keys."""
        lines = (
            f"[127.0.0.1]:{machine.port} {machine.host_key.export_public_key().decode()}" for machine in self.machines
        )
        self.known_hosts.write_text("".join(lines))

    def device(self, number: int) -> Device:
        """Return a device as roll-outs take it."""
        machine = self.machines[number]
        return Device(host="127.0.0.1", user="pi", port=machine.port, root=str(machine.root))

    def inventory(self) -> Path:
        """Write an inventory of all devices, the first two in a group of their own, and return its path."""
        path = self.folder / "devices.toml"
        tables = (
            f'[[device]]\nhost = "127.0.0.1"\nuser = "pi"\nport = {machine.port}\nroot = "{machine.root}"\n'
            f'groups = ["{"first" if number < 2 else "rest"}"]\n'
            for number, machine in enumerate(self.machines)
        )
        path.write_text("\n".join(tables))
        return path

    def active(self, number: int) -> str | None:
        """Return what a device's ``active`` points to."""
        link = self.machines[number].root / "active"
        return link.readlink().name if link.is_symlink() else None

    def close(self) -> None:
        """End all devices."""
        for machine in self.machines:
            with suppress(Exception):
                self.do(machine.end())
        self.do(_cancel_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.wait(rest, timeout=5) if rest else None


@contextmanager
def site(folder: Path, count: int) -> Iterator[Site]:
    """Yield a site with so many devices, and close it in the end."""
    made = Site(folder, count)
    try:
        yield made
    finally:
        made.close()
