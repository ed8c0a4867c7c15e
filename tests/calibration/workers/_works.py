"""Work, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from rexport._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FragileError(Exception):
    """An error that can be pickled and not read again."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "and more")


def onnxruntime_out_of_memory(text: str) -> Exception:
    return Fail(f"[ONNXRuntimeError] : 1 : FAIL : {text} Failed to allocate memory for requested buffer of size 8")


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Square numbers; ``deadly`` ones kill their worker, as often as ``lives`` says; the ``refused`` one raises.

    Files in ``marks`` count how often.
    """

    marks: Path
    deadly: frozenset[int] = frozenset()
    lives: int = 1
    refused: int | None = None
    error: Callable[[str], Exception] = DataError

    def open(self) -> Callable[[int], tuple[int, int]]:
        return self._square

    def _square(self, number: int) -> tuple[int, int]:
        if number == self.refused:
            (self.marks / f"refused-{len(list(self.marks.iterdir()))}").touch()
            raise self.error(f"{number} is refused.")
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
