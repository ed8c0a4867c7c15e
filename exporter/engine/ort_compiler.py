"""Letting ONNX Runtime's TensorRT provider compile a model into an ONNX file that holds the engine, in a worker.

Session options ``ep.context_enable``, ``ep.context_file_path`` and ``ep.context_embed_mode`` ask for that file while a
session is made. The engine is embedded, so that there is one file, which one hash covers. Written against ONNX
Runtime's documentation; not run on a GPU yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError
from rexport.engine.gpu import facts_of_gpu
from rexport.runtimes.onnxruntime_gpu import open_on_provider
from rexport.runtimes.onnxruntime_tensorrt import ENTRIES, OnnxRuntimeTensorRt, engine_options, facts_of
from rexport.runtimes.probes import PROBES, load_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.runtimes.onnxruntime_tensorrt import Facts

__all__ = ["build", "options_of"]

_WRITTEN = "context.onnx"


def build(options: Mapping[str, Any], say: Any) -> dict[str, Any]:  # noqa: ARG001 (ONNX Runtime tells of no progress)
    """Compile the file ``options["model"]`` into ``engine``, an ONNX file with the engine in it.

    Raises:
        ModelFileError: ONNX Runtime can't read the model.
        UnavailableError: The provider is not the session's, leaves operators to others, or wrote no file.
    """
    model = Path(options["model"])
    name, provider = OnnxRuntimeTensorRt.NAME, OnnxRuntimeTensorRt.PROVIDER
    load_libraries(provider, *PROBES[name].arguments[1:])
    session = open_on_provider(
        model,
        name=name,
        provider=provider,
        options=options_of(facts_of(model), options),
        entries={
            **ENTRIES,
            "ep.context_enable": "1",
            "ep.context_file_path": str(Path(_WRITTEN).absolute()),
            "ep.context_embed_mode": "1",
        },
        threads=this_cpu().cores,
    )
    del session
    if not Path(_WRITTEN).exists():
        raise UnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} wrote no file of what it compiled; build with --backend tensorrt."
        )
    Path(_WRITTEN).rename("engine")
    return {"version": onnxruntime.__version__, "warnings": [], **facts_of_gpu()}


def options_of(facts: Facts, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the provider's options for a model and a worker's options.

    Raises:
        ModelFileError: The model is open in more than its batch.
    """
    batch, sides = facts.shape[0], [side for side in facts.shape[1:] if side is not None]
    if len(sides) < len(facts.shape) - 1:
        raise ModelFileError(
            f"The input {facts.name} has dynamic dimensions besides the batch; export it for one picture size."
        )
    shapes = tuple((batch or number, *sides) for number in options["batch"])
    provider_options = engine_options(facts, shapes)
    if options["workspace_mib"] is not None:
        provider_options["trt_max_workspace_size"] = str(options["workspace_mib"] * 2**20)
    if options["optimization_level"] is not None:
        provider_options["trt_builder_optimization_level"] = str(options["optimization_level"])
    if options["hardware_compatible"]:
        provider_options["trt_engine_hw_compatible"] = "1"
    return provider_options
