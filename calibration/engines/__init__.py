"""Where the parts of a long piece of work run: in this process, in several, or on several machines."""

from __future__ import annotations

from rexport.calibration.engines.base import Engine, Work
from rexport.calibration.engines.choice import EngineName, choose_engine
from rexport.calibration.engines.local import LocalEngine
from rexport.calibration.engines.processes import ProcessEngine
from rexport.calibration.engines.ray import RayEngine

__all__ = ["Engine", "EngineName", "LocalEngine", "ProcessEngine", "RayEngine", "Work", "choose_engine"]
