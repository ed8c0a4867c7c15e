"""TensorRT engines: building them from ONNX files, with or without a GPU, and checking what came of each layer.

Each part is loaded when it is first used: the process that compiles (:mod:`rexport.engine.worker`) needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._lazy import lazy

if TYPE_CHECKING:
    from rexport.engine.build import BuiltEngine, build_engine
    from rexport.engine.compile import Compiled, compile_model
    from rexport.engine.options import BatchRange, BuildOptions
    from rexport.engine.refit import refit_engine

__all__ = [
    "BatchRange",
    "BuildOptions",
    "BuiltEngine",
    "Compiled",
    "build_engine",
    "compile_model",
    "refit_engine",
]

_HOMES = {
    "BatchRange": "options",
    "BuildOptions": "options",
    "BuiltEngine": "build",
    "Compiled": "compile",
    "build_engine": "build",
    "compile_model": "compile",
    "refit_engine": "refit",
}

__getattr__, __dir__ = lazy(__name__, __all__, _HOMES)
