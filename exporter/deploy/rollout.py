"""Many devices: some at once, in batches, and no further batch once too many have failed.

A device that fails has rolled back automatically; a rollout that stops leaves the remaining devices untouched.
Run again, it goes on: a device with the version active is left alone, and what a device has of the bundle is not sent
again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rexport._errors import DeviceError
from rexport._progress import unsaid
from rexport.deploy.remote import Agent, AgentRefusedError
from rexport.deploy.ssh import UnreachableError, connect, load_identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rexport._progress import Note
    from rexport.deploy.inventory import Device
    from rexport.deploy.ssh import Access

__all__ = [
    "QUIET",
    "Outcome",
    "Pace",
    "Report",
    "Result",
    "Step",
    "Visit",
    "require_success",
    "roll_out",
]


class Step(StrEnum):
    """How far a device has come."""

    CONNECT = "connecting"
    PROBE = "looking"
    AGENT = "sending the agent"
    TRUST = "placing the key"
    STATUS = "asking the agent"
    CHECK = "checking"
    SEND = "sending the bundle"
    INSTALL = "installing"
    ROLLBACK = "rolling back"


class Outcome(StrEnum):
    """What became of a device."""

    INSTALLED = "installed"
    ALREADY = "already active"
    PLANNED = "would be installed"
    ANSWERED = "answered"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    NOT_STARTED = "not started"

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong on this device."""
        return self in (Outcome.FAILED, Outcome.UNREACHABLE)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a device.

    Attributes:
        device: Which.
        outcome: In a word.
        step: The last one that was begun.
        reason: A sentence, where it failed.
        exit_code: The agent's, where it refused.
        answer: The agent's last document.
        active: The ID of the version that is active, as far as is known.
        previous: Of the one before it, likewise.
        sent_bytes: Of the bundle.
        seconds: That it took.
    """

    device: Device
    outcome: Outcome
    step: Step | None = None
    reason: str | None = None
    exit_code: int | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    active: str | None = None
    previous: str | None = None
    sent_bytes: int = 0
    seconds: float = 0.0

    @property
    def explanation(self) -> str | None:
        """Why it failed, in a sentence that names the device."""
        if self.reason is None or str(self.device) in self.reason:
            return self.reason
        return f"{self.device}, {self.step}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the device's entry in a document."""
        return {
            **vars(self),
            "device": str(self.device),
            "host": self.device.host,
            "root": self.device.root,
            "seconds": round(self.seconds, 3),
            "answer": self.answer or None,
        }


class Report:
    """Who is told how it goes: nobody, unless a subclass says otherwise."""

    def begin(self, devices: Sequence[Device]) -> None:
        """Say which devices there are, before any is touched."""

    def step(self, device: Device, step: Step) -> None:
        """Begin a step of a device."""

    def sent(self, device: Device, sent: int, size: int) -> None:
        """Say how many bytes of the bundle a device has."""

    def finished(self, result: Result) -> None:
        """Say what became of a device."""


QUIET = Report()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many devices at once.

    Attributes:
        parallel: So many connections at a time.
        batch_size: A batch ends before the next one begins; ``None`` for one batch of all.
        max_failures: The next batch begins if no more devices than this have failed in all.
    """

    parallel: int = 8
    batch_size: int | None = None
    max_failures: int = 0


class Visit:
    """A device that is being worked on: its steps, as they are begun, and what is known of it so far."""

    def __init__(self, device: Device, access: Access, report: Report) -> None:
        self.device = device
        self.access = access
        self.report = report
        self.result = Result(device=device, outcome=Outcome.UNREACHABLE)

    def step(self, step: Step) -> None:
        """Begin a step."""
        self.know(step=step)
        self.report.step(self.device, step)

    def know(self, **facts: Any) -> None:
        """Keep what the result is going to say."""
        self.result = replace(self.result, **facts)

    def hear(self, answer: Mapping[str, Any]) -> None:
        """Keep what the agent says."""
        self.know(answer=answer)
        for link in ("active", "previous"):
            if link in answer:
                self.know(**{link: _id(answer[link])})

    async def run(self, work: Callable[[Visit, Agent], Awaitable[Outcome]]) -> Result:
        """Connect, do the work, and return what became of the device, whatever that is."""
        begun = time.monotonic()
        try:
            self.step(Step.CONNECT)
            async with connect(self.device, self.access) as connection:
                self.know(outcome=await work(self, Agent(connection, self.device)))
        except UnreachableError as error:
            self.know(outcome=Outcome.UNREACHABLE, reason=str(error))
        except DeviceError as error:
            self.know(outcome=Outcome.FAILED, reason=str(error))
            if isinstance(error, AgentRefusedError):
                self.know(exit_code=error.exit_code_there)
                self.hear(error.document)
        self.know(seconds=time.monotonic() - begun)
        self.report.finished(self.result)
        return self.result


async def roll_out(
    devices: Sequence[Device],
    work: Callable[[Visit, Agent], Awaitable[Outcome]],
    *,
    access: Access,
    pace: Pace,
    report: Report = QUIET,
    note: Note = unsaid,
) -> tuple[Result, ...]:
    """Do the same work on devices, batch by batch, and return what became of each, in their order.

    Args:
        devices: In this order.
        work: What to do on each; it tells the visit of its steps.
        access: How to come to them.
        pace: How many at once, and when to stop.
        report: Told how it goes.
        note: Told of host keys that can't be read.

    Raises:
        InputError: A private key or the file of host keys can't be used; no device was touched.
        UnavailableError: asyncssh is not installed.
    """
    _try_keys(devices, access, note)
    report.begin(devices)
    free = asyncio.Semaphore(pace.parallel)

    async def visit(device: Device) -> Result:
        async with free:
            return await Visit(device, access, report).run(work)

    results: list[Result] = []
    size = pace.batch_size or max(len(devices), 1)
    for start in range(0, len(devices), size):
        batch = devices[start : start + size]
        if sum(result.outcome.is_failure for result in results) > pace.max_failures:
            results += [Result(device=device, outcome=Outcome.NOT_STARTED) for device in batch]
        else:
            results += await asyncio.gather(*map(visit, batch))
    return tuple(results)


def _try_keys(devices: Sequence[Device], access: Access, note: Note) -> None:
    """Read the host keys and the private keys, so that what is wrong with them comes out before a device is touched."""
    for place in access.read_known_hosts().passed_over:
        note(f"{place}: no host key can be read there; the line is passed over.")
    for identity in filter(None, {device.identity or access.identity for device in devices}):
        load_identity(identity)


def require_success(results: Sequence[Result], activity: str) -> None:
    """Raise if a device failed, or was not begun.

    Args:
        results: Of a roll-out.
        activity: What it was, for the message: ``"Installing"``.

    Raises:
        DeviceError: One did; the message says how many, and why the first failed.
    """
    failed = [result for result in results if result.outcome.is_failure]
    not_started = sum(result.outcome is Outcome.NOT_STARTED for result in results)
    if failed or not_started:
        untouched = f"; {not_started} not started" if not_started else ""
        reasons = "".join(f" {result.explanation}" for result in failed[:1])
        raise DeviceError(f"{activity} failed on {len(failed)} of {len(results)} devices{untouched}.{reasons}")


def _id(version: Any) -> str | None:
    """Return a version's ID, which agents give alone or among other facts of it."""
    if isinstance(version, dict):
        version = version.get("id")
    return version and str(version)
