"""One device over an open connection: its agent, its trusted keys, what it runs, and a bundle on its way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import DeviceError, VerificationError
from rexport.deploy import container, signing
from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.inventory import DEFAULT_PYTHON, DEFAULT_ROOT
from rexport.deploy.manifest import from_bytes
from rexport.deploy.ssh import Finished, Source, no_python

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rexport.deploy.inventory import Device
    from rexport.deploy.signing import PublicKey
    from rexport.deploy.ssh import Connection
    from rexport.device._manifest import Manifest

__all__ = ["Agent", "AgentRefusedError", "Cargo", "Probe", "Shipment"]

_ROUNDS = 3  # of sending, where the device has less than it said, or other bytes
_HEAD = 1 << 19  # bytes at the start of a bundle, in which the manifest and its signature lie
_PATIENCE = 30.0  # seconds that an agent may wait for another one, beside its own work


class AgentRefusedError(DeviceError):
    """The agent says no; ``document`` is what it says, and ``exit_code_there`` its exit code."""

    def __init__(self, message: str, exit_code_there: int, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.exit_code_there = exit_code_there
        self.document = document


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """A bundle to be sent, read once and whole: what it says, and the bytes of its ``.rxb`` form."""

    manifest: Manifest
    source: Source

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
                    f"{path} is not signed with the key of {trust}, so devices would refuse it."
                ) from error
        return cls(manifest=manifest, source=Source(container.to_rxb(contents)))

    def to_json(self) -> dict[str, Any]:
        """Return what a document says of the bundle."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "manifest_sha256": self.manifest.sha256,
            "sha256": self.source.sha256,
            "bytes": self.source.size,
        }

    @property
    def place(self) -> str:
        """Where it arrives below the root of a device; see ``_receiver.py``."""
        return f"incoming/{self.source.sha256}.rxb"


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What another tool, such as Ansible, brings to devices.

    Attributes:
        cargo: The bundle.
        key: The public key that the devices are to trust; ``None`` where they do.
        root: rexport's folder on devices for which no other is named.
        python: The Python there, likewise.
        inputs: The files that all this was read from, which stay as they are.
    """

    cargo: Cargo
    key: PublicKey | None = None
    root: str = DEFAULT_ROOT
    python: str = DEFAULT_PYTHON
    inputs: Sequence[Path] = ()

    @property
    def name(self) -> str:
        """What the bundle's file is called, without ``.rxb``."""
        return f"{self.cargo.manifest.name}-{self.cargo.manifest.version}"

    def files(self) -> dict[str, bytes]:
        """Return the agent, the bundle and, if there is one, the key, by the names of their files."""
        files = {AGENT_NAME: agent_bytes(), f"{self.name}.rxb": self.cargo.source.data}
        if self.key is not None:
            files["trusted.pem"] = self.key.pem()
        return files


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a device has, before anything is changed.

    Attributes:
        agent_sha256: Of the agent that is there, ``None`` without.
        keys: How many keys it trusts.
        received: How many bytes of the bundle are there from an earlier try.
        whole: Whether all of it is.
        free: Bytes that are free below the root.
        writable: Whether the root, or the folder that it would be made in, can be written to.
    """

    agent_sha256: str | None
    keys: int
    received: int
    whole: bool
    free: int
    writable: bool


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
        sha256, size = ("none", 0) if cargo is None else (cargo.source.sha256, cargo.source.size)
        answer = await self._connection.ask_receiver("probe", sha256)
        whole = answer.get("whole") is True
        return Probe(
            agent_sha256=answer.get("agent"),
            keys=_whole_number(answer.get("keys")),
            received=size if whole else min(_whole_number(answer.get("received")), size),
            whole=whole,
            free=_whole_number(answer.get("free")),
            writable=answer.get("writable") is True,
        )

    async def send(
        self, name: str, source: Source, *, offset: int = 0, sent: Callable[[int], None] = lambda _: None
    ) -> None:
        """Send a file from ``offset`` on to its place below the root; ``sent`` is told how much of it is there.

        Raises:
            DeviceError: It does not arrive as it was sent.
        """
        for _ in range(_ROUNDS):
            answer = await self._connection.send(name, source, offset=offset, sent=sent)
            if answer.get("done") is True:
                return
            offset = min(_whole_number(answer.get("received")), source.size)
        raise DeviceError(
            f"{self._device}: {name} arrived with other bytes than were sent, {_ROUNDS} times; check its disk."
        )

    async def rehearse(self, cargo: Cargo, agent: Source, trust: PublicKey | None) -> dict[str, Any]:
        """Have ``agent`` check the bundle on the device, as if it trusted that key, and return its document.

        Raises:
            AgentRefusedError: The bundle would not be installed.
            DeviceError: There was no answer that can be read.
        """
        parts = [agent.data, b"" if trust is None else trust.pem(), cargo.source.data[:_HEAD]]
        sizes = [str(len(part)) for part in parts]
        seconds = self._connection.access.install_timeout
        answer = await self._connection.ask_receiver("rehearse", *sizes, stdin=b"".join(parts), seconds=seconds)
        return self._document(
            Finished(
                exit_code=_whole_number(answer.get("exit_code")),
                stdout=str(answer.get("stdout")),
                stderr=str(answer.get("stderr")),
            )
        )

    async def install(self, cargo: Cargo) -> dict[str, Any]:
        """Install the bundle that was sent, and return the agent's document.

        Raises:
            AgentRefusedError: It was not installed; what was active still is.
        """
        seconds = max(self._connection.access.install_timeout, cargo.manifest.limits.seconds) + _PATIENCE
        try:
            answer = await self.call("install", f"{self._device.root}/{cargo.place}", seconds=seconds)
        except AgentRefusedError:
            await self._discard(cargo)
            raise
        await self._discard(cargo)
        return answer

    async def rollback(self) -> dict[str, Any]:
        """Go back to the version before, and return the agent's document."""
        return await self.call("rollback", seconds=self._connection.access.install_timeout + _PATIENCE)

    async def call(self, *words: str, stdin: bytes = b"", seconds: float | None = None) -> dict[str, Any]:
        """Run a verb of the agent, and return its document.

        Raises:
            AgentRefusedError: It failed.
            DeviceError: There was no answer that can be read.
        """
        root, options = self._device.root, ["--json", "--wait", f"{_PATIENCE:g}"]
        command = [self._device.python, f"{root}/{AGENT_NAME}", *words, "--root", root, *options]
        return self._document(await self._connection.run(command, stdin=stdin, seconds=seconds))

    def _document(self, finished: Finished) -> dict[str, Any]:
        """Return the document of an agent that ended, or raise what it says."""
        document = finished.document()
        if finished.exit_code != 0:
            if document is None and not finished.last_words:
                raise no_python(self._device, finished)
            message = str((document or {}).get("error") or finished.last_words)
            raise AgentRefusedError(message, finished.exit_code, document or {})
        if document is None:
            raise no_python(self._device, finished)
        return document

    async def _discard(self, cargo: Cargo) -> None:
        await self._connection.ask_receiver("discard", cargo.place.rpartition("/")[2])


def _whole_number(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0
