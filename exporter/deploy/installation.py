"""What is done on a device: installing a bundle, asking what is there, going back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import DeviceError
from rexport.deploy.remote import Agent, Probe
from rexport.deploy.rollout import Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.deploy.inventory import Device
    from rexport.deploy.remote import AgentFile, Cargo
    from rexport.deploy.rollout import Visit
    from rexport.deploy.signing import PublicKey
    from rexport.deploy.ssh import Connection

__all__ = ["Installation", "ask_status", "go_back"]

_SPARE_ROOM = 16 << 20  # bytes beside the bundle and its files that a device must have free


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Installing a bundle on a device.

    Attributes:
        cargo: The bundle.
        agent: The agent that installs it there.
        trust: A public key that the device is made to trust first; ``None`` for those that it has.
        dry_run: Look, and change nothing.
    """

    cargo: Cargo
    agent: AgentFile
    trust: PublicKey | None = None
    dry_run: bool = False

    async def __call__(self, visit: Visit, connection: Connection) -> Outcome:
        """Do what is still to be done on a device.

        Raises:
            DeviceError: It failed, or the device was lost.
        """
        agent = Agent(connection, visit.device)
        visit.step(Step.PROBE)
        probe = await agent.probe(self.cargo)
        has_agent = probe.agent_sha256 == self.agent.source.sha256
        if self.dry_run:
            return await self._look(visit, agent, probe, has_agent)
        if not has_agent:
            visit.step(Step.AGENT)
            await agent.put(self.agent)
        status = await self._ask(visit, agent)
        if self.trust is not None and self.trust.fingerprint() not in status["keys"]:
            visit.step(Step.TRUST)
            await agent.trust(self.trust)
        elif not status["keys"]:
            raise DeviceError(f"{visit.device} trusts no key yet; on the first set-up, name one with --trust KEY.pem.")
        if self._stands(visit, status):
            return Outcome.ALREADY
        self._require_room(visit.device, probe)
        visit.step(Step.SEND)
        await agent.send(self.cargo, probe, lambda sent: self._sent(visit, probe, sent))
        visit.step(Step.INSTALL)
        answer = await agent.install(self.cargo)
        visit.hear(answer)
        return Outcome.INSTALLED if answer.get("changed", True) else Outcome.ALREADY

    async def _look(self, visit: Visit, agent: Agent, probe: Probe, has_agent: bool) -> Outcome:
        if not probe.writable:
            raise DeviceError(
                f"{visit.device}: {visit.device.root} can't be written there; choose another with --root."
            )
        if has_agent and self._stands(visit, await self._ask(visit, agent)):
            return Outcome.ALREADY
        self._require_room(visit.device, probe)
        return Outcome.PLANNED

    async def _ask(self, visit: Visit, agent: Agent) -> dict[str, Any]:
        visit.step(Step.STATUS)
        status = await agent.status()
        visit.hear(status)
        if not isinstance(status.get("keys"), list):
            raise DeviceError(f"The agent on {visit.device} does not say which keys it trusts; is it rexport's?")
        return status

    def _stands(self, visit: Visit, status: Mapping[str, Any]) -> bool:
        """Say whether the version is active for good: until its install ends, the agent may still go back."""
        return visit.result.active == self.cargo.folder and status.get("pending") is None

    def _require_room(self, device: Device, probe: Probe) -> None:
        missing = 0 if probe.whole else self.cargo.source.size - min(probe.received, self.cargo.source.size)
        needed = missing + self.cargo.room + _SPARE_ROOM
        if probe.free < needed:
            raise DeviceError(
                f"{device}: {device.root} has {probe.free / 2**20:.0f} MiB free, and {needed / 2**20:.0f} MiB are "
                "needed; free some there and run it again."
            )

    def _sent(self, visit: Visit, probe: Probe, sent: int) -> None:
        visit.know(sent_bytes=sent - min(probe.received, sent))
        visit.report.sent(visit.device, sent, self.cargo.source.size)


async def ask_status(visit: Visit, connection: Connection) -> Outcome:
    """Ask a device's agent what is installed.

    Raises:
        DeviceError: There is no agent, or it gave no answer.
    """
    agent = Agent(connection, visit.device)
    visit.step(Step.PROBE)
    if (await agent.probe()).agent_sha256 is None:
        raise DeviceError(
            f"{visit.device} has no agent in {visit.device.root}; `rexport deploy` brings it, and --root names another."
        )
    visit.step(Step.STATUS)
    visit.hear(await agent.status())
    return Outcome.ANSWERED


async def go_back(visit: Visit, connection: Connection) -> Outcome:
    """Have a device go back to the version before.

    Raises:
        DeviceError: It did not; what was active still is.
    """
    await ask_status(visit, connection)
    agent = Agent(connection, visit.device)
    visit.step(Step.ROLLBACK)
    await agent.rollback()
    visit.hear(await agent.status())
    return Outcome.ROLLED_BACK
