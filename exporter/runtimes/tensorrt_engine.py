"""Engines of TensorRT, 10.3 to 11 (``rexport engine --backend tensorrt``).

The work of each shape is captured as a CUDA graph and started as a whole; where that fails, it is queued piece by piece
and ``why_no_graph`` says why. A version-compatible engine of another version runs on that version's lean runtime.
"""

from __future__ import annotations

from typing import ClassVar

from rexport.runtimes._engine_runtime import EngineRuntime

__all__ = ["TensorRtEngine"]


class TensorRtEngine(EngineRuntime):
    """An engine file of TensorRT."""

    BACKEND: ClassVar[str] = "tensorrt"
