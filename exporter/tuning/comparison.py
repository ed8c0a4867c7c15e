"""A whole model against another one, measured here."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._cpu import this_cpu
from rexport._errors import UnavailableError, UsageError
from rexport._progress import Progress, silent
from rexport.benchmarks.intervals import is_noisy
from rexport.benchmarks.suite import bench
from rexport.model_file import save
from rexport.model_inputs import fixed_batch
from rexport.tuning.timings import Conditions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Comparison", "compare", "conditions_for"]

_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times as fast as a model its changed form is: the median of the rounds, and its 95 % interval."""

    speedup: float
    interval: tuple[float, float]

    @property
    def is_faster(self) -> bool:
        """Whether it is, beyond the noise."""
        return self.interval[0] > 1

    def __str__(self) -> str:
        low, high = self.interval
        if is_noisy(self.interval):
            return f"{self.speedup:.2f} × as fast (too noisy to tell)"
        return f"{self.speedup:.2f} × as fast ({low:.2f} to {high:.2f})"


def compare(model: ir.Model, changed: ir.Model, conditions: Conditions, *, progress: Progress = silent) -> Comparison:
    """Measure ``changed`` against ``model`` on ONNX Runtime, each in a process of its own and in turns.

    Raises:
        UnavailableError: One of them does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        save(model, before)
        save(changed, after)
        rows = bench(
            [before, after],
            runtimes=["cpu"],
            batches=[conditions.batch],
            threads=conditions.threads,
            min_seconds=_SECONDS,
            progress=progress,
        ).rows
    _, row = rows
    if row.speedup is None or row.speedup_interval is None:
        raise UnavailableError(f"The model can't be measured: {rows[0].reason or row.reason}")
    return Comparison(speedup=row.speedup, interval=row.speedup_interval)


def conditions_for(model: ir.Model, *, batch: int | None, threads: int | None) -> Conditions:
    """Return the conditions to measure a model at: by default its own batch, or 1, and one thread per usable core.

    Raises:
        UsageError: The model has another fixed batch.
    """
    fixed = fixed_batch(model)
    if batch is not None and fixed not in (None, batch):
        raise UsageError(f"The model takes batches of {fixed} only, so nothing can be measured at {batch}.")
    return Conditions.here(batch=batch or fixed or 1, threads=threads or this_cpu().cores)
