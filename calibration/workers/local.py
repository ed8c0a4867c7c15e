"""This very process as the only worker: one item after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rexport.calibration.workers.base import ItemT, ResultT, Work

__all__ = ["LocalWorkers"]


@dataclass(frozen=True, kw_only=True)
class LocalWorkers:
    """This process, with a runtime of ``threads``."""

    threads: int

    def map(self, work: Work[ItemT, ResultT], items: Sequence[ItemT]) -> Generator[tuple[int, ResultT], None, None]:
        """See :meth:`Workers.map`."""
        function = work.open()
        for index, item in enumerate(items):
            yield index, function(item)
