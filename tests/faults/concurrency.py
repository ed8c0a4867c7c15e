"""Two installs and a rollback at once, again and again: what comes out must be what some order of them gives."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults._part import Part
from tests.faults.agent import Done, Workshop, active_version, complaint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["ROUNDS", "Remembered", "orders_that_give", "run"]

ROUNDS = 100


@dataclass(frozen=True)
class Remembered:
    """The versions that are active and previous on a device, and the highest that ever was."""

    active: int
    previous: int | None
    highest: int

    def after(self, verb: int | None) -> Remembered | None:
        """Return what an install of version ``verb``, or with ``None`` a rollback, makes of it; ``None`` if refused."""
        if verb is None:
            return None if self.previous is None else Remembered(self.previous, self.active, self.highest)
        if verb < self.highest:
            return None
        return self if verb == self.active else Remembered(verb, self.active, verb)


def orders_that_give(
    end: Remembered, begin: Remembered, verbs: Sequence[int | None], succeeded: Sequence[bool]
) -> list[tuple[int | None, ...]]:
    """Return the orders of the verbs, one at a time, in which those succeed that did, and that end so."""
    found = []
    for order in itertools.permutations(range(len(verbs))):
        now: Remembered | None = begin
        for index in order:
            next_ = now.after(verbs[index]) if now is not None else None
            if (next_ is not None) != succeeded[index]:
                now = None
                break
            now = next_ if next_ is not None else now
        if now == end:
            found.append(tuple(verbs[index] for index in order))
    return found


def run(folder: Path, *, rounds: int = ROUNDS, done: Callable[[int], None]) -> Part:
    """Run the rounds, each on a fresh copy of a root on which version 2 is active and 1 the previous one."""
    workshop = Workshop.set_up(folder / "workshop")
    bundles = [workshop.bundle(version) for version in (1, 2, 3, 4)]
    ready = workshop.root(bundles[0], bundles[1], name="ready")
    failures: list[str] = []
    ends: Counter[str] = Counter()
    for number in range(rounds):
        root = workshop.copy_of(ready, folder / "root")
        words = (("install", bundles[2]), ("install", bundles[3]), ("rollback",))
        started = [workshop.agent.start(*verb, root=root) for verb in words]
        ended = [Done(code=one.wait(), stdout=out, stderr=err) for one in started for out, err in [one.communicate()]]
        fault, end = _fault(root, ended)
        ends[end] += 1
        if fault is not None:
            failures.append(f"round {number}: {fault}")
        done(1)
    return Part(cases=rounds, failures=tuple(failures), detail={"active_in_the_end": dict(sorted(ends.items()))})


def _fault(root: Path, ended: Sequence[Done]) -> tuple[str | None, str]:
    """Return what is wrong after a round, and which version won."""
    for one in ended:
        if complaint(one) is not None:
            return complaint(one), "?"
    try:
        active = active_version(root)
        previous = active_version(root, "previous")
    except ValueError as error:
        return str(error), "broken"
    state: dict[str, Any] = json.loads((root / "state.json").read_text())
    if active is None or state["pending"] is not None:
        return f"version {active} is active, and {state['pending']} is pending", str(active)
    if any((root / "staging").iterdir()):
        return "something is left in staging", str(active)
    end = Remembered(active, previous, state["highest"])
    succeeded = [one.code == 0 for one in ended]
    if not orders_that_give(end, Remembered(2, 1, 2), (3, 4, None), succeeded):
        said = "; ".join(one.stderr.strip() or "done" for one in ended)
        return f"no order of what succeeded ends in {end}: {said}", str(active)
    return None, str(active)
