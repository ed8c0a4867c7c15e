"""How far a build is: TensorRT reports nested phases, each with a known number of steps.

While a phase is in one of its steps, the phases within it begin and end, and share that step. So a phase that has
completed d of n steps, with the furthest phase within it at the fraction f, is at (d + f) / n. Steps are not equally
long, but the fraction never decreases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Phases"]


@dataclass(kw_only=True)
class _Phase:
    """``steps``, of which ``completed`` are over; ``inner`` is 1 once a phase within the current step has ended."""

    name: str
    within: str
    steps: int
    completed: int = 0
    inner: float = 0.0


class Phases:
    """The phases of a build, as the worker reports them.

    Attributes:
        part: The fraction of the build that is done, from 0 to 1.
    """

    def __init__(self) -> None:
        self.part = 0.0
        self._open: list[_Phase] = []

    @property
    def now(self) -> str:
        """The innermost phase, and its steps if it has several; empty between builds."""
        if not self._open:
            return ""
        last = self._open[-1]
        return last.name if last.steps < 2 else f"{last.name} {last.completed}/{last.steps}"

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take one message of a worker: a phase begins, goes on, or ends.

        Args:
            message: ``{"phase", "within", "of"}``, ``{"phase", "done"}`` or ``{"phase", "ends": true}``.
        """
        name = message["phase"]
        if "of" in message:
            self._open.append(_Phase(name=name, within=message["within"], steps=max(1, message["of"])))
        phase = self._last(name)
        if phase is None:
            return
        if "done" in message:
            phase.completed, phase.inner = min(message["done"], phase.steps), 0.0
        if message.get("ends"):
            self._open.remove(phase)
            outer = self._last(phase.within)
            if outer is not None:
                outer.inner = 1.0
        part = max((self._part_of(index) for index in range(len(self._open)) if self._is_root(index)), default=1.0)
        self.part = max(self.part, part)

    def _last(self, name: str) -> _Phase | None:
        return next((phase for phase in reversed(self._open) if phase.name == name), None)

    def _is_root(self, index: int) -> bool:
        return all(phase.name != self._open[index].within for phase in self._open[:index])

    def _part_of(self, index: int) -> float:
        phase = self._open[index]
        within = (later for later in range(index + 1, len(self._open)) if self._open[later].within == phase.name)
        inner = max(map(self._part_of, within), default=phase.inner)
        return min(1.0, (phase.completed + inner) / phase.steps)
