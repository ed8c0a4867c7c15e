"""Every system call that an install or a rollback changes the disk with, killed at or made to fail.

``strace`` records one run; then, for each of its calls that creates, writes, flushes, renames, links or removes
something below the root, one run on a fresh copy is killed at that call, one gets ENOSPC from it and one EIO. Only the
agent's own process is traced: ``openssl`` and the self-check change nothing below the root, which the recording, made
with all processes traced, makes sure of.

A kill at every call can't find a missing fsync, for what was written stays in the page cache: that is what
``power_cuts`` is for.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults._part import NotHereError, Part, in_threads, require_tools
from tests.faults.agent import Workshop, complaint, fault_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["FAULTS", "Call", "changing_calls", "run"]

FAULTS = {"killed": "signal=KILL", "no room": "error=ENOSPC", "I/O error": "error=EIO"}
_CHANGING = (
    "open", "openat", "creat", "mkdir", "mkdirat", "write", "writev", "pwrite64", "fsync", "fdatasync", "rename",
    "renameat", "renameat2", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "link", "linkat", "truncate",
    "ftruncate", "fallocate", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "utimensat",
    "copy_file_range", "sendfile",
)  # fmt: skip
_OPENING = ("open", "openat", "creat")
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")


@dataclass(frozen=True, kw_only=True)
class Call:
    """The ``count``-th call of ``name`` in a run; ``line`` is what strace wrote of it."""

    name: str
    count: int
    line: str


@dataclass(frozen=True, kw_only=True)
class _Verb:
    """What is run on a copy of ``root``: from one version to another, and whether it can just be run again."""

    words: tuple[str | Path, ...]
    root: Path
    before: int
    after: int
    repeats: bool


@dataclass(frozen=True, kw_only=True)
class _Case:
    verb: _Verb
    call: Call
    fault: str


def run(
    folder: Path, *, every: int = 1, only: Sequence[str] = ("install", "rollback"), done: Callable[[int], None]
) -> Part:
    """Run every case, or of the calls only every so many, of one verb or both.

    Raises:
        NotHereError: strace is missing, or may not trace.
    """
    require_tools("strace")
    workshop = Workshop.set_up(folder / "workshop")
    one, two = (workshop.bundle(version) for version in (1, 2))
    verbs = []
    if "install" in only:
        root = workshop.root(one, name="one")
        verbs.append(_Verb(words=("install", two), root=root, before=1, after=2, repeats=True))
    if "rollback" in only:
        root = workshop.root(one, two, name="two")
        verbs.append(_Verb(words=("rollback",), root=root, before=2, after=1, repeats=False))
    failures: list[str] = []
    cases: list[_Case] = []
    calls: Counter[str] = Counter()
    for verb in verbs:
        found = _record(workshop, verb, folder / "recorded", failures)
        calls[str(verb.words[0])] = len(found)
        cases += [_Case(verb=verb, call=call, fault=fault) for call in found[::every] for fault in FAULTS]
    outcomes: Counter[str] = Counter()
    for case, (outcome, fault) in zip(
        cases, in_threads(lambda case: _try(folder, workshop, case), cases, done=done), strict=True
    ):
        outcomes[f"{case.fault}: {'broken' if fault else outcome}"] += 1
        if fault is not None:
            failures.append(
                f"{case.verb.words[0]}, {case.fault} at {case.call.name} {case.call.count}: {fault} ({case.call.line})"
            )
    detail = {"calls": dict(calls), "outcomes": dict(sorted(outcomes.items()))}
    return Part(cases=len(cases), failures=tuple(failures), detail=detail)


def changing_calls(log: Iterable[str], root: Path) -> list[Call]:
    """Return the calls in a log of ``strace -y`` that may change what lies below ``root``, in order."""
    found, counts = [], Counter[str]()
    for line in log:
        match = _LINE.match(line)
        if match is None or match[1] not in _CHANGING:
            continue
        name, rest = match[1], match[2]
        counts[name] += 1
        # of what writes, the file's name stands after the descriptor; the rest of the line is data
        place = rest.split(">", 1)[0] if name in ("write", "writev", "pwrite64") else rest
        is_reading = name in _OPENING and not re.search(r"O_CREAT|O_TRUNC|O_WRONLY|O_RDWR", rest)
        if str(root) in place and not is_reading:
            found.append(Call(name=name, count=counts[name], line=line.strip()[:160]))
    return found


def _record(workshop: Workshop, verb: _Verb, place: Path, failures: list[str]) -> list[Call]:
    """Return the changing calls of the agent's own process; children must have none."""
    root = workshop.copy_of(verb.root, place)
    own, every = place.with_suffix(".own"), place.with_suffix(".every")
    traced = workshop.agent.run(*verb.words, root=root, before=_strace(own))
    if traced.code or not own.exists():
        raise NotHereError(f"strace may not trace here ({traced.stderr.strip()[-200:]}).")
    with own.open(errors="replace") as log:
        calls = changing_calls(log, root)
    root = workshop.copy_of(verb.root, place)
    workshop.agent.run(*verb.words, root=root, before=[*_strace(every), "-f"])
    with every.open(errors="replace") as log:
        of_all = changing_calls(log, root)
    if len(of_all) != len(calls):
        failures.append(f"{verb.words[0]}: child processes change what lies below the root, and were not traced.")
    return calls


def _strace(log: Path) -> list[str]:
    return ["strace", "-y", "-s", "512", "-o", str(log), "-e", f"trace={','.join(_CHANGING)}"]


def _try(folder: Path, workshop: Workshop, case: _Case) -> tuple[str, str | None]:
    """Return which version was active in the end, and what is wrong, if anything is."""
    verb, call = case.verb, case.call
    either = (verb.before, verb.after)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root, log = workshop.copy_of(verb.root, Path(name) / "root"), Path(name) / "log"
        inject = ["-e", f"inject={call.name}:{FAULTS[case.fault]}:when={call.count}"]
        first = workshop.agent.run(*verb.words, root=root, before=[*_strace(log), *inject])
        struck = _struck(log, call, killed=case.fault == "killed")
        if struck is None or str(root) not in struck:
            return "", f"the fault did not strike where it was to ({struck})"
        fault = None if case.fault == "killed" else complaint(first)
        fault = fault or fault_in(root, allowed=either if first.code else (verb.after,))
        if fault is not None:
            return "", fault
        status = workshop.agent.run("status", root=root)
        fault = complaint(status) or fault_in(root, allowed=either)
        if fault is not None or status.code:
            return "", f"then, of status: {fault or status.stderr.strip()}"
        outcome = "new version" if fault_in(root, allowed=(verb.after,)) is None else "old version"
        if verb.repeats or outcome == "old version":
            again = workshop.agent.run(*verb.words, root=root)
            fault = complaint(again) or fault_in(root, allowed=(verb.after,))
            if fault is not None or again.code:
                return outcome, f"tried again: {fault or again.stderr.strip()}"
        return outcome, None


def _struck(log: Path, call: Call, *, killed: bool) -> str | None:
    """Return the line of the call that the fault struck."""
    lines = log.read_text(errors="replace").splitlines()
    if killed:
        of_name = [line for line in lines if line.startswith(f"{call.name}(")]
        return of_name[-1] if "killed by SIGKILL" in lines[-1] and len(of_name) == call.count else None
    return next((line for line in lines if "(INJECTED)" in line), None)
