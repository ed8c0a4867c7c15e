"""What is done on a device: installing a bundle, asking for its status, rolling back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rexport._errors import DeviceError
from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.remote import AgentRefusedError
from rexport.deploy.rollout import Outcome, Step
from rexport.deploy.ssh import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.deploy.remote import Agent, Cargo, Probe
    from rexport.deploy.rollout import Visit
    from rexport.deploy.signing import PublicKey

__all__ = ["Installation", "ask_status", "go_back"]

_SPARE_ROOM = 16 << 20  # bytes beside the bundle and its files that a device must have free


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Installing a bundle on a device.

    Attributes:
        cargo: The bundle.
        trust: A public key that the device is made to trust first; ``None`` for those that it has.
        dry_run: Check what an installation would check, and change nothing.
        agent: The agent that installs it there.
    """

    cargo: Cargo
    trust: PublicKey | None = None
    dry_run: bool = False
    agent: Source = field(default_factory=lambda: Source(agent_bytes()))

    async def __call__(self, visit: Visit, agent: Agent) -> Outcome:
        """Do what is still to be done on a device.

        Raises:
            DeviceError: It failed, or the device was lost.
        """
        visit.step(Step.PROBE)
        probe = await agent.probe(self.cargo)
        if self.dry_run:
            return await self._look(visit, agent, probe)
        if probe.agent_sha256 != self.agent.sha256:
            visit.step(Step.AGENT)
            await agent.send(AGENT_NAME, self.agent)
        status = await self._ask(visit, agent)
        if self.trust is not None and self.trust.fingerprint() not in status["keys"]:
            visit.step(Step.TRUST)
            await agent.call("key", "add", "-", stdin=self.trust.pem())
        elif not status["keys"]:
            raise DeviceError(_no_key(visit))
        if self._stands(visit, status):
            return Outcome.ALREADY
        no_room = self._no_room(visit, probe)
        if no_room is not None:
            raise DeviceError(no_room)
        visit.step(Step.SEND)
        if not probe.whole:
            sent = partial(self._sent, visit, probe)
            await agent.send(self.cargo.place, self.cargo.source, offset=probe.received, sent=sent)
        visit.step(Step.INSTALL)
        answer = await agent.install(self.cargo)
        visit.hear(answer)
        return Outcome.INSTALLED if answer.get("changed", True) else Outcome.ALREADY

    async def _look(self, visit: Visit, agent: Agent, probe: Probe) -> Outcome:
        """Check the device, its keys and its runtimes, and name all that an installation would fail of."""
        visit.step(Step.CHECK)
        problems = []
        if not probe.writable:
            problems.append(f"{visit.device}: {visit.device.root} can't be written there; choose another with --root.")
        if not probe.keys and self.trust is None:
            problems.append(_no_key(visit))
        else:
            try:
                visit.hear(await agent.rehearse(self.cargo, self.agent, self.trust))
            except AgentRefusedError as error:
                problems.append(str(error))
                visit.know(exit_code=error.exit_code_there)
                visit.hear(error.document)
        if not problems and visit.result.answer.get("result") == Outcome.ALREADY:
            return Outcome.ALREADY
        no_room = self._no_room(visit, probe)
        if no_room is not None:
            problems.append(no_room)
        if problems:
            raise DeviceError(" ".join(problems))
        return Outcome.PLANNED

    async def _ask(self, visit: Visit, agent: Agent) -> dict[str, Any]:
        visit.step(Step.STATUS)
        status = await agent.call("status")
        visit.hear(status)
        if not isinstance(status.get("keys"), list):
            raise DeviceError(f"The agent on {visit.device} does not say which keys it trusts; is it rexport's?")
        return status

    def _stands(self, visit: Visit, status: Mapping[str, Any]) -> bool:
        """Say whether the version is active for good: until its install ends, the agent may still go back."""
        return visit.result.active == self.cargo.manifest.id and status.get("pending") is None

    def _no_room(self, visit: Visit, probe: Probe) -> str | None:
        """Say that the device has no room for the rest of the bundle, its files, and some more; ``None`` if it has."""
        needed = self.cargo.source.size - probe.received + self.cargo.manifest.size + _SPARE_ROOM
        if probe.free >= needed:
            return None
        return (
            f"{visit.device}: {visit.device.root} has {probe.free / 2**20:.0f} MiB free, and "
            f"{needed / 2**20:.0f} MiB are needed; free some there and run it again."
        )

    def _sent(self, visit: Visit, probe: Probe, sent: int) -> None:
        visit.know(sent_bytes=sent - min(probe.received, sent))
        visit.report.sent(visit.device, sent, self.cargo.source.size)


def _no_key(visit: Visit) -> str:
    return f"{visit.device} trusts no key yet; on the first set-up, name one with --trust KEY.pem."


async def ask_status(visit: Visit, agent: Agent) -> Outcome:
    """Ask a device's agent what is installed.

    Raises:
        DeviceError: There is no agent, or it gave no answer.
    """
    visit.step(Step.PROBE)
    if (await agent.probe()).agent_sha256 is None:
        raise DeviceError(
            f"{visit.device} has no agent in {visit.device.root}; `rexport deploy` installs one; --root names another "
            "folder."
        )
    visit.step(Step.STATUS)
    visit.hear(await agent.call("status"))
    return Outcome.ANSWERED


async def go_back(visit: Visit, agent: Agent) -> Outcome:
    """Have a device roll back to its previous version.

    Raises:
        DeviceError: It did not; what was active still is.
    """
    await ask_status(visit, agent)
    visit.step(Step.ROLLBACK)
    await agent.rollback()
    visit.hear(await agent.call("status"))
    return Outcome.ROLLED_BACK
