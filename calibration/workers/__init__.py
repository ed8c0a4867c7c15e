"""Where the parts of a long piece of work run: in this process, in several, or on several machines."""

from __future__ import annotations

from rexport.calibration.workers.base import Work, Workers
from rexport.calibration.workers.choice import choose_workers
from rexport.calibration.workers.local import LocalWorkers
from rexport.calibration.workers.processes import ProcessWorkers
from rexport.calibration.workers.ray import RayWorkers

__all__ = ["LocalWorkers", "ProcessWorkers", "RayWorkers", "Work", "Workers", "choose_workers"]
