"""The forms that a grouped convolution can be written in, all of which compute the same."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AS_IT_IS", "GroupForm"]


@dataclass(frozen=True, order=True)
class GroupForm:
    """Neighbouring groups ``merged`` into one (1: none), and the resulting groups in ``branches`` or not.

    Forms are ordered by their cost in weights and nodes. See :class:`rexport.passes.regroup.Regroup` and
    :class:`rexport.passes.split_groups.SplitGroups`.
    """

    branches: bool = False
    merged: int = 1

    def __str__(self) -> str:
        branches = _BRANCHES if self.branches else ""
        return f"{self.merged}{branches}"

    @classmethod
    def parse(cls, text: str) -> GroupForm:
        """Read the text of :meth:`__str__`; raises ``ValueError`` for any other."""
        return cls(branches=text.endswith(_BRANCHES), merged=int(text.removesuffix(_BRANCHES)))


_BRANCHES = " in branches"
AS_IT_IS = GroupForm()
