"""Roll-outs over SSH: the connection cut and the device rebooted at every step, and strangers at either end.

A roll-out that nothing happens to is recorded first, so that nothing here says which steps there are. It is cut when
the connection is made, the keys are exchanged and the user is let in; before and after each command, and while it runs;
and between the bytes of each transfer. After each cut the old version or the new one has to be active, and whole: the
old one for certain before ``install`` began, and the new one once it had ended. Then the same roll-out has to succeed.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults._part import Part, in_threads, require_modules
from tests.faults.agent import Agent, Workshop, everything_below, fault_in
from tests.faults.ssh_device import MOMENTS, Cut, Machine, Step
from tests.faults.ssh_site import Site, site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rexport.deploy.installation import Installation
    from rexport.deploy.rollout import Result
    from rexport.deploy.ssh import Access

__all__ = ["DEVICES", "cuts", "run"]

DEVICES = ("a new device", "a device with an older version, agent and key")
_SHARES = (0.5,)  # of a transfer, beside its first byte and all but its last
_MOMENTS_OF_LONGEST = 8  # while the longest command runs; of the others one
_STRANGERS = {
    "another host key": "shows another host key than the known one",
    "an unknown host key": "host key .* is not known",
    "another client key": "accepts none of the keys",
}
_REFUSALS = 3  # times each


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A device before the roll-out: a root that is copied for every case, and the version that is active there."""

    name: str
    root: Path | None
    version: int | None


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A roll-out that is cut; with ``reboots``, the device goes down and comes back."""

    start: _Start
    step: str
    where: str
    cut: Cut
    allowed: tuple[int | None, ...]

    def __str__(self) -> str:
        how = "rebooted" if self.cut.reboot else "cut"
        return f"{self.start.name}, {how} {self.where} {self.step}"


@dataclass(frozen=True, kw_only=True)
class _Stranger:
    """A roll-out that must not get in, and what it must say."""

    start: _Start
    kind: str

    def __str__(self) -> str:
        return f"{self.start.name}, {self.kind}"


@dataclass(frozen=True, kw_only=True)
class _Lab:
    """Devices before the roll-out, and the roll-out of version 2."""

    folder: Path
    starts: tuple[_Start, ...]
    work: Installation

    @classmethod
    def set_up(cls, folder: Path, devices: Sequence[str]) -> _Lab:
        from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
        from rexport.deploy.installation import Installation
        from rexport.deploy.remote import Cargo
        from rexport.deploy.signing import load_public_key

        before, now = Workshop.set_up(folder / "before"), Workshop.set_up(folder / "now")
        root = before.root(before.bundle(1))
        (root / AGENT_NAME).write_bytes(agent_bytes() + b"\n")  # one that is not today's
        starts = (
            _Start(name=DEVICES[0], root=None, version=None),
            _Start(name=DEVICES[1], root=root, version=1),
        )
        work = Installation(cargo=Cargo.load(now.bundle(2)), trust=load_public_key(now.public))
        return cls(folder=folder, starts=tuple(one for one in starts if one.name in devices), work=work)

    def roll_out(self, there: Site, access: Access | None = None) -> Result:
        """Roll version 2 out to the site's only device."""
        from rexport.deploy.rollout import QUIET, Pace, roll_out
        from rexport.deploy.ssh import Access

        access = access or Access(identity=there.identity, known_hosts=there.known_hosts)
        (result,) = asyncio.run(roll_out([there.device(0)], self.work, access=access, pace=Pace(), report=QUIET))
        return result


def run(folder: Path, *, every: int = 1, devices: Sequence[str] = DEVICES, done: Callable[[int], None]) -> Part:
    """Cut at every step, or at every so many of them, on these of :data:`DEVICES`; and have strangers turn up.

    Raises:
        NotHereError: asyncssh or cryptography is not installed.
    """
    require_modules("asyncssh", "cryptography")
    lab = _Lab.set_up(folder, devices)
    failures: list[str] = []
    cases: list[_Case | _Stranger] = []
    recorded: dict[str, list[str]] = {}
    for start in lab.starts:
        steps = _record(lab, start)
        recorded[start.name] = [step.verb for step in steps]
        cases += list(_cases(start, steps))[::every]
        times = _REFUSALS if every == 1 else 1
        cases += [_Stranger(start=start, kind=kind) for kind in _STRANGERS for _ in range(times)]
    held: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    def try_one(case: _Case | _Stranger) -> tuple[str, str | None]:
        return _try(lab, case) if isinstance(case, _Case) else _turn_up(lab, case)

    for case, (end, fault) in zip(cases, in_threads(try_one, cases, done=done), strict=True):
        name = case.step if isinstance(case, _Case) else case.kind
        tried[name] += 1
        held[name] += fault is None
        ends["broken" if fault else end] += 1
        if fault is not None:
            failures.append(f"{case}: {fault}")
    detail = {
        "steps": recorded,
        "held": {name: f"{held[name]} of {count}" for name, count in tried.items()},
        "then": dict(sorted(ends.items())),
    }
    return Part(cases=len(cases), failures=tuple(failures), detail=detail)


def cuts(steps: Sequence[Step]) -> Iterator[tuple[int, str, Cut]]:
    """Yield where a roll-out of these steps can be cut: the step's index, where at it in words, and the cut."""
    longest = max(steps, key=lambda step: step.seconds)
    for index, step in enumerate(steps):
        at = Cut(step.verb, nth=1 + sum(one.verb == step.verb for one in steps[:index]))
        if step.verb in MOMENTS:
            yield index, "at", at
            continue
        yield index, "before", at
        count = _MOMENTS_OF_LONGEST if step is longest else 1
        for number in range(count):
            share = (number + 0.5) / count
            yield index, f"after {share:.0%} of the time of", replace(at, at_seconds=share * step.seconds)
        if step.received > 1:
            for byte in sorted({1, *(int(share * step.received) for share in _SHARES), step.received - 1} - {0}):
                yield index, f"after {byte} of {step.received} bytes of", replace(at, at_byte=byte)
        yield index, "after", replace(at, after=True)


def _cases(start: _Start, steps: Sequence[Step]) -> Iterator[_Case]:
    install = next(index for index, step in enumerate(steps) if step.verb == "install")
    for index, where, cut in cuts(steps):
        old, new = (start.version,), (2,)
        is_under_way = index == install and not cut.is_before and not cut.after
        allowed = (*old, *new) if is_under_way else new if (index, cut.after) >= (install, True) else old
        name = f"{steps[index].verb} {cut.nth}" if cut.nth > 1 else steps[index].verb
        for reboot in (False, True):
            yield _Case(start=start, step=name, where=where, cut=replace(cut, reboot=reboot), allowed=allowed)


def _record(lab: _Lab, start: _Start) -> list[Step]:
    """Return the steps of a roll-out that nothing happens to."""
    with tempfile.TemporaryDirectory(dir=lab.folder) as name, site(Path(name), 1) as there:
        machine = _furnish(there, start)
        result = lab.roll_out(there)
        fault = fault_in(machine.root, allowed=(2,))
        if result.outcome.is_failure or fault is not None:
            raise RuntimeError(f"A roll-out to {start.name} fails without a fault: {result.reason or fault}")
        return list(machine.steps)


def _furnish(there: Site, start: _Start) -> Machine:
    machine = there.machines[0]
    machine.environment = {**Agent.environment(), "PATH": machine.environment["PATH"]}
    if start.root is not None:
        Workshop.copy_of(start.root, machine.root)
    return machine


def _try(lab: _Lab, case: _Case) -> tuple[str, str | None]:
    """Return which version was active after the cut, and what is wrong, if anything is."""
    from rexport.deploy.rollout import Outcome

    with tempfile.TemporaryDirectory(dir=lab.folder) as name, site(Path(name), 1) as there:
        machine = _furnish(there, case.start)
        machine.cut = case.cut
        result = lab.roll_out(there)
        if not case.cut.done:
            return "", "the cut did not strike"
        if result.outcome is not Outcome.UNREACHABLE:
            return "", f"the roll-out says {result.outcome}: {result.reason}"
        fault = fault_in(machine.root, allowed=case.allowed)
        if fault is not None:
            return "", fault
        end = "the new version" if fault_in(machine.root, allowed=(2,)) is None else "what was there before"
        if case.cut.reboot:
            away = lab.roll_out(there)
            if away.outcome is not Outcome.UNREACHABLE:
                return end, f"while the device is away, the roll-out says {away.outcome}"
            there.do(machine.start())
        again = lab.roll_out(there)
        if again.outcome not in (Outcome.INSTALLED, Outcome.ALREADY):
            return end, f"again, the roll-out says {again.outcome}: {again.reason}"
        fault = fault_in(machine.root, allowed=(2,))
        pending = json.loads((machine.root / "state.json").read_text())["pending"]
        return end, fault or (f"again, it says {again.outcome}, and {pending} is pending" if pending else None)


def _turn_up(lab: _Lab, case: _Stranger) -> tuple[str, str | None]:
    """Return that a roll-out was refused, and what is wrong, if anything is."""
    import asyncssh

    from rexport.deploy.rollout import Outcome
    from rexport.deploy.ssh import Access

    with tempfile.TemporaryDirectory(dir=lab.folder) as name, site(Path(name), 1) as there:
        machine = _furnish(there, case.start)
        before = everything_below(machine.root.parent)
        known, identity = Path(name) / "known", Path(name) / "identity"
        other = asyncssh.generate_private_key("ssh-ed25519")
        other.write_private_key(identity)
        known.write_text(f"[127.0.0.1]:{machine.port} {other.export_public_key().decode()}")
        access = Access(identity=there.identity, known_hosts=there.known_hosts)
        if case.kind == "another host key":
            access = replace(access, known_hosts=known)
        elif case.kind == "an unknown host key":
            known.write_text("")
            access = replace(access, known_hosts=known)
        else:
            access = replace(access, identity=identity)
        result = lab.roll_out(there, access)
        if result.outcome is not Outcome.UNREACHABLE or not re.search(_STRANGERS[case.kind], result.reason or ""):
            return "", f"the roll-out says {result.outcome}: {result.reason}"
        if machine.commands:
            return "", f"the device ran {', '.join(machine.commands)}"
        if everything_below(machine.root.parent) != before:
            return "", "something was written on the device"
        return "refused", None
