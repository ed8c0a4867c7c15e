"""Engines of TensorRT for RTX (``rexport engine --backend rtx``).

Its kernels are compiled for the GPU while loading and at the first call of a shape, all of them at once (``EAGER``): by
default, better ones would take over amid later calls. It captures CUDA graphs itself, since it knows when that is so.
"""

from __future__ import annotations

from typing import ClassVar

from rexport.runtimes._engine_runtime import EngineRuntime

__all__ = ["RtxEngine"]


class RtxEngine(EngineRuntime):
    """An engine file of TensorRT for RTX."""

    BACKEND: ClassVar[str] = "rtx"
