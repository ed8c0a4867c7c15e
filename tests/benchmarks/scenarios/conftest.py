from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rexport.benchmarks.jobs import Job
from rexport.benchmarks.scenarios import run, worker
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeClock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float) -> None:
        self.time = max(self.time, moment)


class FakeMachine:
    """Runs every command of the scenarios on a model that takes ``service(images)`` seconds, in no time at all."""

    job = Job(source=Source(path=Path("fake.onnx")), runtime="cpu", shape=(1, 3, 1, 1), threads=1)

    def __init__(self, service: Callable[[int], float]) -> None:
        self.clock = FakeClock()
        self.worker = worker.Worker()
        self.calls: list[int] = []
        self._service = service

    def run(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(len(images))
        self.clock.time += self._service(len(images))
        return images

    def request(self, do: str, *, should_take: float, **arguments: Any) -> dict[str, Any]:
        assert 0 <= should_take < float("inf")
        return self.worker.answer({"do": do, **arguments})


@pytest.fixture
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], FakeMachine]:
    """Puts a model of known service time in place of the process."""

    def make(service: Callable[[int], float]) -> FakeMachine:
        machine = FakeMachine(service)

        @contextmanager
        def opened(job: Job) -> Iterator[FakeMachine]:
            library = np.zeros((max(job.batch, 4), 3, 1, 1), np.float32)
            machine.worker._sut = worker.SystemUnderTest(machine, library, None, job.batch)  # type: ignore[arg-type]
            yield machine

        monkeypatch.setattr(run, "opened", opened)
        monkeypatch.setattr(worker, "MonotonicClock", lambda: machine.clock)
        monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=machine.clock.now))
        return machine

    return make
