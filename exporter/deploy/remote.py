"""One device over an open connection: its agent, its trusted keys, what it runs, and a bundle on its way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import DeviceError, VerificationError
from rexport.deploy import container, signing
from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.manifest import from_bytes
from rexport.deploy.ssh import Source, no_python

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rexport.deploy.inventory import Device
    from rexport.deploy.signing import PublicKey
    from rexport.deploy.ssh import Connection

__all__ = ["Agent", "AgentFile", "AgentRefusedError", "Cargo", "Probe"]

_ROUNDS = 3  # of sending, where the device has less than it said, or other bytes
_PATIENCE = 30.0  # seconds that an agent may wait for another one, beside its own work


class AgentRefusedError(DeviceError):
    """The agent says no; ``document`` is what it says, and ``exit_code_there`` its exit code."""

    def __init__(self, message: str, exit_code_there: int, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.exit_code_there = exit_code_there
        self.document = document


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """A bundle to be sent, read once and whole.

    Attributes:
        name: Of the model.
        version: Its number.
        manifest_sha256: Of the manifest, by which versions are told from each other.
        source: The bytes of the ``.rxb`` form.
        room: The bytes of all files, which the device needs beside those of the bundle.
        seconds: How long the self-check may take there.
    """

    name: str
    version: int
    manifest_sha256: str
    source: Source
    room: int
    seconds: float

    @classmethod
    def load(cls, path: Path, *, trust: Path | None = None) -> Cargo:
        """Read a bundle.

        Args:
            path: A folder, or an ``.rxb`` file.
            trust: The public key that the devices are to trust; the bundle must be signed with it.

        Raises:
            BundleError: It is none, or damaged.
            VerificationError: Its signature is another key's.
        """
        contents = container.read(path)
        manifest = from_bytes(contents.manifest)
        contents.require_files(manifest)
        if trust is not None:
            try:
                signing.load_public_key(trust).verify(contents.manifest, contents.signature)
            except VerificationError as error:
                raise VerificationError(
                    f"{path} is not signed with the key of {trust}, so no device would take it."
                ) from error
        return cls(
            name=manifest.name,
            version=manifest.version,
            manifest_sha256=manifest.sha256,
            source=Source(container.to_rxb(contents)),
            room=sum(facts.bytes for facts in manifest.files.values()),
            seconds=float(manifest.limits.seconds),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a document says of the bundle."""
        return {
            "name": self.name,
            "version": self.version,
            "manifest_sha256": self.manifest_sha256,
            "sha256": self.source.sha256,
            "bytes": self.source.size,
        }

    @property
    def folder(self) -> str:
        """What the version's folder on a device is called."""
        return f"{self.name}-{self.version}-{self.manifest_sha256[:12]}"


class AgentFile:
    """The agent as one file."""

    def __init__(self) -> None:
        self.source = Source(agent_bytes())


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a device has, before anything is changed.

    Attributes:
        python: Its version of Python.
        machine: As ``platform.machine()`` has it.
        agent_sha256: Of the agent that is there, ``None`` without.
        received: How many bytes of the bundle are there from an earlier try.
        whole: Whether all of it is.
        free: Bytes that are free below the root.
        writable: Whether the root, or the folder that it would be made in, can be written to.
    """

    python: str
    machine: str
    agent_sha256: str | None
    received: int
    whole: bool
    free: int
    writable: bool

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Probe:
        """Return the probe that the receiver's answer is."""
        return cls(
            python=str(answer.get("python")),
            machine=str(answer.get("machine")),
            agent_sha256=answer.get("agent"),
            received=_whole_number(answer.get("received")),
            whole=answer.get("whole") is True,
            free=_whole_number(answer.get("free")),
            writable=answer.get("writable") is True,
        )


class Agent:
    """The agent on a device, and what it takes to get it there."""

    def __init__(self, connection: Connection, device: Device) -> None:
        self._connection = connection
        self._device = device

    async def probe(self, cargo: Cargo | None = None) -> Probe:
        """Look at the device, and change nothing.

        Raises:
            DeviceError: It has no Python that can be used.
        """
        return Probe.of(await self._connection.ask_receiver("probe", cargo.source.sha256 if cargo else "none"))

    async def put(self, agent: AgentFile) -> None:
        """Send the agent."""
        await self._send(AGENT_NAME, agent.source, offset=0)

    async def trust(self, key: PublicKey) -> None:
        """Have the device trust a public key.

        Raises:
            AgentRefusedError: It trusts two others already.
        """
        await self.call("key", "add", "-", stdin=key.pem())

    async def send(self, cargo: Cargo, probe: Probe, sent: Callable[[int], None]) -> None:
        """Send what the device does not have of a bundle yet; ``sent`` is told how much it has."""
        if not probe.whole:
            await self._send(_incoming(cargo), cargo.source, offset=min(probe.received, cargo.source.size), sent=sent)

    async def install(self, cargo: Cargo) -> dict[str, Any]:
        """Install the bundle that was sent, and return the agent's document.

        Raises:
            AgentRefusedError: It was not installed; what was active still is.
        """
        seconds = max(self._connection.limits.install, cargo.seconds) + _PATIENCE
        sent = _incoming(cargo)
        try:
            answer = await self.call("install", f"{self._device.root}/{sent}", seconds=seconds)
        except AgentRefusedError:
            await self._connection.ask_receiver("discard", sent.rpartition("/")[2])
            raise
        await self._connection.ask_receiver("discard", sent.rpartition("/")[2])
        return answer

    async def status(self) -> dict[str, Any]:
        """Return the agent's document of what is installed."""
        return await self.call("status")

    async def rollback(self) -> dict[str, Any]:
        """Go back to the version before, and return the agent's document."""
        return await self.call("rollback", seconds=self._connection.limits.install + _PATIENCE)

    async def call(self, *words: str, stdin: bytes = b"", seconds: float | None = None) -> dict[str, Any]:
        """Run a verb of the agent, and return its document.

        Raises:
            AgentRefusedError: It failed.
            DeviceError: There was no answer that can be read.
        """
        root = self._device.root
        command = [
            self._device.python,
            f"{root}/{AGENT_NAME}",
            *words,
            "--root",
            root,
            "--json",
            "--wait",
            f"{_PATIENCE:g}",
        ]
        finished = await self._connection.run(command, stdin=stdin, seconds=seconds)
        document = finished.document()
        if finished.exit_code != 0:
            if document is None and not finished.last_words:
                raise no_python(self._device, finished)
            why = str((document or {}).get("error") or finished.last_words)
            raise AgentRefusedError(why, finished.exit_code, document or {})
        if document is None:
            raise no_python(self._device, finished)
        return document

    async def _send(
        self, name: str, source: Source, *, offset: int, sent: Callable[[int], None] = lambda _: None
    ) -> None:
        for _ in range(_ROUNDS):
            answer = await self._connection.send(name, source, offset=offset, sent=sent)
            if answer.get("done") is True:
                return
            offset = min(_whole_number(answer.get("received")), source.size)
        raise DeviceError(
            f"{self._device}: {name} arrived with other bytes than were sent, {_ROUNDS} times; check its disk."
        )


def _incoming(cargo: Cargo) -> str:
    return f"incoming/{cargo.source.sha256}.rxb"


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
