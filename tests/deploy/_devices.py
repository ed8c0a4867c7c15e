"""Devices: SSH servers on 127.0.0.1, each with a root of its own, that run real commands and fail on demand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from rexport.deploy.inventory import Device

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

__all__ = ["Cut", "Site", "site"]


@dataclass
class Cut:
    """Ends the connection, once, where a command's line has ``verb`` among its words.

    Attributes:
        verb: Such as ``probe`` or ``install``.
        after: Run the command to its end first, and keep the answer back.
        at_byte: Cut once so many bytes of stdin have come.
        reboot: Stop listening, too.
        done: Whether it has happened.
    """

    verb: str
    after: bool = False
    at_byte: int | None = None
    reboot: bool = False
    done: bool = False


@dataclass
class Machine:
    """A device: its root, the server's host key and port, what was run on it, and what is to go wrong."""

    root: Path
    host_key: asyncssh.SSHKey
    clients: Path
    environment: dict[str, str]
    port: int = 0
    commands: list[str] = field(default_factory=list)
    received: int = 0
    cut: Cut | None = None
    silent: set[str] = field(default_factory=set)
    server: Any = None
    connections: set[Any] = field(default_factory=set)
    children: set[Any] = field(default_factory=set)

    async def start(self) -> None:
        machine = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                machine.connections.add(conn)

        self.server = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Server,
            server_host_keys=[self.host_key],
            authorized_client_keys=str(self.clients),
            process_factory=self._run,
            encoding=None,
        )
        self.port = self.server.get_port()

    async def stop(self) -> None:
        self.server.close()
        for connection in list(self.connections):
            connection.abort()
        self.connections.clear()
        await self.server.wait_closed()

    async def end(self) -> None:
        """Stop, with everything that still runs there."""
        for child in self.children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        await self.stop()
        for child in list(self.children):
            await child.wait()

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        line = process.command or ""
        verb = next((word for word in _VERBS if f" {word} " in f" {line} ".replace("\n", " ")), "")
        self.commands.append(verb)
        cut = self.cut if self.cut is not None and not self.cut.done and self.cut.verb == verb else None
        if cut is not None and not cut.after and cut.at_byte is None:
            await self._cut(process, cut)
            return
        if verb in self.silent:
            await asyncio.sleep(3600)
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd=str(self.root.parent),
            start_new_session=True,
        )
        self.children.add(child)
        feeding = asyncio.create_task(self._feed(process, child, cut))
        stdout, stderr = await asyncio.gather(child.stdout.read(), child.stderr.read())  # type: ignore[union-attr]
        code = await child.wait()
        self.children.discard(child)
        feeding.cancel()
        if cut is not None and cut.after:
            await self._cut(process, cut)
        with suppress(OSError, asyncssh.Error):
            process.stdout.write(stdout)
            process.stderr.write(stderr)
            process.exit(code)

    async def _feed(self, process: Any, child: Any, cut: Cut | None) -> None:
        taken = 0
        with suppress(OSError, asyncssh.Error):
            while block := await process.stdin.read(1 << 14):
                if cut is not None and cut.at_byte is not None and taken + len(block) > cut.at_byte:
                    block = block[: cut.at_byte - taken]
                child.stdin.write(block)
                await child.stdin.drain()
                taken += len(block)
                self.received += len(block)
                if cut is not None and taken == cut.at_byte:
                    child.stdin.close()
                    await child.wait()
                    await self._cut(process, cut)
                    return
        child.stdin.close()

    async def _cut(self, process: Any, cut: Cut) -> None:
        cut.done = True
        if cut.reboot:
            await self.stop()
        else:
            process.get_extra_info("connection").abort()


_VERBS = ("probe", "receive", "discard", "status", "install", "rollback", "add")


class Site:
    """Some devices, and the machine that talks to them: its key, and its file of host keys."""

    def __init__(self, folder: Path, count: int) -> None:
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

    def do(self, work: Awaitable[None]) -> None:
        """Do something in the servers' loop."""
        asyncio.run_coroutine_threadsafe(_awaited(work), self._loop).result(60)

    def know_hosts(self) -> None:
        lines = (
            f"[127.0.0.1]:{machine.port} {machine.host_key.export_public_key().decode()}" for machine in self.machines
        )
        self.known_hosts.write_text("".join(lines))

    def device(self, number: int) -> Device:
        machine = self.machines[number]
        return Device(host="127.0.0.1", user="pi", port=machine.port, root=str(machine.root))

    def inventory(self) -> Path:
        path = self.folder / "devices.toml"
        tables = (
            f'[[device]]\nhost = "127.0.0.1"\nuser = "pi"\nport = {machine.port}\nroot = "{machine.root}"\n'
            f'groups = ["{"first" if number < 2 else "rest"}"]\n'
            for number, machine in enumerate(self.machines)
        )
        path.write_text("\n".join(tables))
        return path

    def active(self, number: int) -> str | None:
        link = self.machines[number].root / "active"
        return link.readlink().name if link.is_symlink() else None

    def close(self) -> None:
        for machine in self.machines:
            with suppress(Exception):
                self.do(machine.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


async def _awaited(work: Awaitable[None]) -> None:
    await work


@contextmanager
def site(folder: Path, count: int) -> Iterator[Site]:
    made = Site(folder, count)
    try:
        yield made
    finally:
        made.close()
