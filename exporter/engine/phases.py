"""How far a build is: TensorRT tells of phases within phases, each of a known number of steps.

While a phase goes through one of its steps, the phases within it may begin and end, and share out that step. So of a
phase that has done d of n steps, with the furthest phase within it at the part f of its own, (d + f) / n is done. Steps
are not equally long, but what is done never becomes less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Phases"]


@dataclass(kw_only=True)
class _Phase:
    """``of`` steps, ``done`` of them; ``inner`` is 1 once a phase within the current step has ended."""

    name: str
    within: str
    of: int
    done: int = 0
    inner: float = 0.0


class Phases:
    """The phases of a build, as they are heard of.

    Attributes:
        part: Of the build that is done, from 0 to 1.
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
        return last.name if last.of < 2 else f"{last.name} {last.done}/{last.of}"

    def hear(self, said: Mapping[str, Any]) -> None:
        """Take one message of a worker: a phase begins, goes on, or ends.

        Args:
            said: ``{"phase", "within", "of"}``, ``{"phase", "done"}`` or ``{"phase", "ends": true}``.
        """
        name = said["phase"]
        if "of" in said:
            self._open.append(_Phase(name=name, within=said["within"], of=max(1, said["of"])))
        phase = self._last(name)
        if phase is None:
            return
        if "done" in said:
            phase.done, phase.inner = min(said["done"], phase.of), 0.0
        if said.get("ends"):
            self._open.remove(phase)
            outer = self._last(phase.within)
            if outer is not None:
                outer.inner = 1.0
        here = max((self._part_of(index) for index in range(len(self._open)) if self._is_root(index)), default=1.0)
        self.part = max(self.part, here)

    def _last(self, name: str) -> _Phase | None:
        return next((phase for phase in reversed(self._open) if phase.name == name), None)

    def _is_root(self, index: int) -> bool:
        return all(phase.name != self._open[index].within for phase in self._open[:index])

    def _part_of(self, index: int) -> float:
        phase = self._open[index]
        within = (other for other in range(index + 1, len(self._open)) if self._open[other].within == phase.name)
        inner = max(map(self._part_of, within), default=phase.inner)
        return min(1.0, (phase.done + inner) / phase.of)
