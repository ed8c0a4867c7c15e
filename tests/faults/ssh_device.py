"""A device: an SSH server on 127.0.0.1 with a root of its own, that runs real commands and fails on demand.

What it is asked to do is written down step by step (:class:`Step`), so that a roll-out that went well tells where
the next one can be cut (:class:`Cut`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

    import asyncssh

__all__ = ["MOMENTS", "Cut", "Machine", "Step"]

MOMENTS = ("connect", "exchange", "login")
"""What comes before the first command: the connection is there, the keys are exchanged, the user's key is accepted."""
_VERBS = ("probe", "receive", "discard", "status", "install", "rollback", "add")
_SETTLE = 0.2  # seconds in which what was sent is read, before a reboot
_PATIENCE = 10.0  # seconds for a cut that is to come


@dataclass
class Step:
    """What a device was asked for: its name, the bytes that came on stdin, and how long it took."""

    verb: str
    received: int = 0
    seconds: float = 0.0


@dataclass
class Cut:
    """Ends the connection, once, at a step.

    Attributes:
        verb: One of :data:`MOMENTS`, or what is among the words of a command, such as ``probe`` or ``install``.
        nth: At the so many-th of these.
        after: Run the command to its end first, and keep the answer back.
        at_byte: Cut once so many bytes of stdin have come.
        at_seconds: Cut so long after the command began, or at its end if that comes first.
        reboot: Stop listening, too, and end what runs there.
        done: Whether it has happened.
    """

    verb: str
    nth: int = 1
    after: bool = False
    at_byte: int | None = None
    at_seconds: float | None = None
    reboot: bool = False
    done: bool = False
    met: int = 0

    @property
    def is_before(self) -> bool:
        """Whether the command never runs."""
        return not self.after and self.at_byte is None and self.at_seconds is None

    def meets(self, verb: str) -> bool:
        """Say whether a step that begins is the one to cut at."""
        if self.done or self.verb != verb:
            return False
        self.met += 1
        return self.met == self.nth


@dataclass
class Machine:
    """A device: its root, the server's host key and port, what was run on it, and what is to go wrong."""

    root: Path
    host_key: asyncssh.SSHKey
    clients: Path
    environment: dict[str, str]
    port: int = 0
    steps: list[Step] = field(default_factory=list)
    cut: Cut | None = None
    silent: set[str] = field(default_factory=set)
    server: Any = None
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    children: set[Process] = field(default_factory=set)
    striking: asyncio.Future[None] | None = None  # held, for a task that nobody holds may be collected

    @property
    def commands(self) -> list[str]:
        """The verbs of the commands that came, in order."""
        return [step.verb for step in self.steps if step.verb not in MOMENTS]

    @property
    def received(self) -> int:
        """How many bytes came on stdin in all."""
        return sum(step.received for step in self.steps)

    async def start(self) -> None:
        """Listen, on the port from before if there was one."""
        import asyncssh

        machine = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.connection = conn
                machine.connections.add(conn)
                machine._reach("connect", conn)

            def begin_auth(self, username: str) -> bool:
                machine._reach("exchange", self.connection)
                return True

            def auth_completed(self) -> None:
                machine._reach("login", self.connection)

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
        """Drop every connection, and listen no longer."""
        self.server.close()
        for connection in list(self.connections):
            connection.abort()
        self.connections.clear()
        await self.server.wait_closed()

    async def end(self) -> None:
        """Stop, with everything that still runs there."""
        self._kill()
        await self.stop()
        for child in list(self.children):
            await child.wait()

    def _kill(self) -> None:
        for child in self.children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _reach(self, moment: str, connection: asyncssh.SSHServerConnection) -> None:
        """Note what comes before the commands, and cut there if that was asked for."""
        self.steps.append(Step(moment))
        if self.cut is not None and self.cut.meets(moment):
            self.striking = asyncio.ensure_future(self._strike(connection, self.cut))

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        import asyncssh

        line = process.command or ""
        verb = next((word for word in _VERBS if f" {word} " in f" {line} ".replace("\n", " ")), "")
        step = Step(verb)
        self.steps.append(step)
        cut = self.cut if self.cut is not None and self.cut.meets(verb) else None
        connection = process.get_extra_info("connection")
        if cut is not None and cut.is_before:
            await self._strike(connection, cut)
            return
        if verb in self.silent:
            await asyncio.sleep(3600)
        begun = time.monotonic()
        child = await self._start_child(line)
        assert child.stdout is not None
        assert child.stderr is not None
        feeding = asyncio.create_task(self._feed(process, child, step, cut))
        output = asyncio.gather(child.stdout.read(), child.stderr.read())
        if cut is not None and cut.at_seconds is not None:
            await asyncio.wait([output], timeout=cut.at_seconds)
            await self._strike(connection, cut)
        stdout, stderr = await output
        code = await child.wait()
        step.seconds = time.monotonic() - begun
        self.children.discard(child)
        if cut is not None and cut.at_byte is not None:
            await asyncio.wait([feeding], timeout=_PATIENCE)  # the end of the command is no news before the cut
        feeding.cancel()
        if cut is not None and cut.after:
            await self._strike(connection, cut)
        with suppress(OSError, asyncssh.Error):
            process.stdout.write(stdout)
            process.stderr.write(stderr)
            process.exit(code)

    async def _start_child(self, line: str) -> Process:
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
        return child

    async def _feed(
        self, process: asyncssh.SSHServerProcess[bytes], child: Process, step: Step, cut: Cut | None
    ) -> None:
        import asyncssh

        assert child.stdin is not None
        end = None if cut is None else cut.at_byte
        with suppress(OSError, asyncssh.Error):
            while block := await process.stdin.read(1 << 14):
                if end is not None:
                    block = block[: end - step.received]
                child.stdin.write(block)
                await child.stdin.drain()
                step.received += len(block)
                if cut is not None and step.received == end:
                    if cut.reboot:
                        await asyncio.sleep(_SETTLE)
                    else:
                        child.stdin.close()
                        await child.wait()
                    await self._strike(process.get_extra_info("connection"), cut)
                    return
        child.stdin.close()

    async def _strike(self, connection: asyncssh.SSHServerConnection, cut: Cut) -> None:
        """Make a cut happen."""
        cut.done = True
        if cut.reboot:
            self._kill()
            await self.stop()
        else:
            connection.abort()
