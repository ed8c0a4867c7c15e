"""TensorRT engines: building them from ONNX files, with or without a GPU, and checking what came of each layer."""

from __future__ import annotations

from rexport.engine.build import BuiltEngine, build_engine
from rexport.engine.compile import Compiled, compile_model
from rexport.engine.options import BackendName, BatchRange, BuildOptions
from rexport.engine.refit import refit_engine

__all__ = [
    "BackendName",
    "BatchRange",
    "BuildOptions",
    "BuiltEngine",
    "Compiled",
    "build_engine",
    "compile_model",
    "refit_engine",
]
