"""TensorRT's real parser and compiler, which TensorRT for RTX brings along and which need no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport.engine import BatchRange, BuildOptions
from rexport.engine.build import compile_model
from rexport.engine.build_log import BuiltLayer, types_of_products
from rexport.engine_file import BackendName

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["build_engine", "types_of_products"]


def build_engine(model: ir.Model, *, batch: int = 1) -> tuple[BuiltLayer, ...]:
    """Return the layers of the engine built of ``model``, as it is: no rule is kept for it."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to try what TensorRT makes of a file")
    options = BuildOptions(backend=BackendName.RTX, batch=BatchRange(least=batch, best=batch, most=batch))
    return compile_model(model, options).layers
