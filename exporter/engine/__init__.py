"""TensorRT engines: building them from ONNX files, with or without a GPU, and checking what came of each layer."""

from __future__ import annotations

from rexport.engine.build import BuiltEngine, build_engine
from rexport.engine.options import BackendName, BatchRange, BuildOptions

__all__ = ["BackendName", "BatchRange", "BuildOptions", "BuiltEngine", "build_engine"]
