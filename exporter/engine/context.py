"""An engine in an ONNX file: compiling a model with ONNX Runtime's TensorRT provider, and checking what it wrote."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from rexport._onnx_proto import name_nodes
from rexport.engine.compile import Compiled
from rexport.engine.context_file import read_context_file, require_compiled
from rexport.engine.process import run_worker
from rexport.model_file import to_bytes
from rexport.runtimes.probes import require

if TYPE_CHECKING:
    from rexport._progress import Progress
    from rexport.engine.options import BuildOptions

__all__ = ["compile_context"]


def compile_context(model: ir.Model, options: BuildOptions, *, name: str, progress: Progress) -> Compiled:
    """Compile a model into an ONNX file that holds its engine, in a process of its own.

    Args:
        model: A model that keeps TensorRT's rules.
        options: What to compile it for.
        name: The model's file, whose name ONNX Runtime writes into its own.
        progress: Shows that work goes on; ONNX Runtime does not report how far it is.

    Raises:
        UnavailableError: The provider is not usable here, or can't run all of the model.
        EngineFileError: ONNX Runtime's file holds no engine.
        VerificationError: It holds a part of the model alone.
        GateError: A layer that multiplies stayed outside of the engine.
    """
    require("tensorrt")
    name_nodes(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / name).write_bytes(to_bytes(model))
        start = time.perf_counter()
        reply = run_worker(
            folder, "build in onnxruntime", _worker_options(options, name), progress, doing="building the engine"
        )
        seconds = time.perf_counter() - start
        written = read_context_file(folder / "engine")
        inputs = [_tensor(value) for value in model.graph.inputs if value.name not in model.graph.initializers]
        outputs = [_tensor(value) for value in model.graph.outputs]
        require_compiled(written, inputs=inputs, outputs=outputs)
        warnings = list(reply["warnings"])
        if written.outside:
            warnings.append(f"outside of the engine, and run by another provider: {written.outside_in_words}")
        return Compiled(
            data=(folder / "engine").read_bytes(),
            reply={**reply, "warnings": warnings, "inputs": inputs, "outputs": outputs},
            precisions={},
            layers=(),
            seconds=seconds,
        )


def _worker_options(options: BuildOptions, name: str) -> dict[str, Any]:
    return {
        "model": name,
        "batch": list(options.batches),
        "workspace_mib": options.workspace_mib,
        "optimization_level": options.optimization_level,
        "hardware_compatible": options.hardware_compatible,
    }


def _tensor(value: ir.Value) -> dict[str, Any]:
    """Return a tensor as :class:`rexport.engine.context_file.ContextFile` has it."""
    return {
        "name": value.name,
        "dtype": (value.dtype or ir.DataType.UNDEFINED).name.lower(),
        "shape": [size if isinstance(size, int) else -1 for size in value.shape or ()],
    }
