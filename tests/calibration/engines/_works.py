"""Work for engines, in a module that their workers can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Square numbers; ``deadly`` ones kill their worker, as often as ``lives`` says, which files in ``marks`` count."""

    marks: Path
    deadly: frozenset[int] = frozenset()
    lives: int = 1
    refused: int | None = None

    def open(self) -> Callable[[int], tuple[int, int]]:
        return self._square

    def _square(self, number: int) -> tuple[int, int]:
        if number == self.refused:
            raise DataError(f"{number} is refused.")
        if number in self.deadly:
            for life in range(self.lives):
                mark = self.marks / f"{number}-{life}"
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return number * number, os.getpid()


@dataclass(frozen=True, kw_only=True)
class WhichNode:
    """Take some ``seconds``, and say on which node of a Ray cluster."""

    seconds: float

    def open(self) -> Callable[[int], str]:
        import ray

        node = ray.get_runtime_context().get_node_id()

        def run(number: int) -> str:
            time.sleep(self.seconds)
            return node

        return run
