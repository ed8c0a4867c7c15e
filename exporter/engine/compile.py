"""Compiling a model in a worker's process, and reading the precision of each layer."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError, VerificationError
from rexport._files import atomic_path
from rexport._onnx_proto import name_nodes
from rexport._progress import Progress, silent
from rexport.engine.build_log import KNOWN_VERSIONS, BuiltLayer, layers_of_log, types_of_products
from rexport.engine.inspector import types_of_inspected
from rexport.engine.process import run_worker
from rexport.engine_file import BackendName
from rexport.model_file import to_bytes
from rexport.passes._graph import WEIGHTED, is_op, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx_ir as ir

    from rexport.engine.options import BuildOptions

__all__ = ["Compiled", "compile_model", "quantized_layers"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """An engine that a worker compiled.

    Attributes:
        data: The engine.
        reply: The worker's: versions, warnings, inputs and outputs.
        precisions: The input type of each layer that multiplies, by TensorRT's name for it; layers that the file does
            not quantize may be missing.
        layers: All layers that the build's log lists; empty for ``tensorrt``, whose inspector is used instead.
        seconds: The time it took.
    """

    data: bytes
    reply: Mapping[str, Any]
    precisions: Mapping[str, str]
    layers: tuple[BuiltLayer, ...]
    seconds: float


def compile_model(model: ir.Model, options: BuildOptions, *, progress: Progress = silent) -> Compiled:
    """Compile a model that follows TensorRT's rules in a process of its own; nodes without names get some.

    Args:
        model: The model.
        options: What to compile it for, with a backend of TensorRT's own.
        progress: Reports the phases of the build.

    Raises:
        ModelFileError: TensorRT can't read the model.
        UnavailableError: The backend is not installed, or its compiler ended in a crash.
        VerificationError: The precision of a layer can't be determined.
    """
    name_nodes(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(to_bytes(model))
        start = time.perf_counter()
        reply = run_worker(folder, "build", _worker_options(options), progress, doing="building the engine")
        seconds = time.perf_counter() - start
        layers: tuple[BuiltLayer, ...] = ()
        if options.backend is BackendName.RTX:
            layers = _layers(folder, reply["version"])
            precisions = _types(model, partial(types_of_products, layers))
        else:
            inspected = json.loads((folder / "layers.json").read_text())
            precisions = _types(model, partial(types_of_inspected, inspected))
        if options.timing_cache is not None:
            with atomic_path(options.timing_cache) as temporary:
                temporary.write_bytes((folder / "timing-cache").read_bytes())
        return Compiled(
            data=(folder / "engine").read_bytes(), reply=reply, precisions=precisions, layers=layers, seconds=seconds
        )


def quantized_layers(model: ir.Model) -> list[str]:
    """Return the names of the layers that read what they multiply, weight included, through DequantizeLinear."""
    return [
        name_of(node)
        for node in model.graph
        if is_op(node, *WEIGHTED)
        and all(is_op(value.producer(), "DequantizeLinear") for value in node.inputs[:2] if value is not None)
    ]


def _types(model: ir.Model, read: Callable[[Iterable[str]], Mapping[str, str]]) -> Mapping[str, str]:
    """Return the types of all quantized layers, and of the other layers that multiply where they are known."""
    types = dict(read(quantized_layers(model)))
    for node in model.graph:
        if is_op(node, *WEIGHTED) and name_of(node) not in types:
            with suppress(VerificationError):
                types |= read([name_of(node)])
    return types


def _worker_options(options: BuildOptions) -> dict[str, Any]:
    flags = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "EXCLUDE_LEAN_RUNTIME": options.version_compatible,
        "REFIT": options.refittable,
        "STRIP_PLAN": options.strip,
        # an engine that only ever gets its own weights back loses no speed
        "REFIT_IDENTICAL": options.strip and not options.refittable,
    }
    return {
        "backend": str(options.backend),
        "capabilities": list(options.capabilities),
        "batch": list(options.batches),
        "workspace_mib": options.workspace_mib,
        "optimization_level": options.optimization_level,
        "timing_cache": options.timing_cache and str(options.timing_cache.absolute()),
        "hardware_compatible": options.hardware_compatible,
        "flags": [flag for flag, is_set in flags.items() if is_set],
    }


def _layers(folder: Path, version: str) -> tuple[BuiltLayer, ...]:
    if not version.startswith(KNOWN_VERSIONS):
        raise UnavailableError(
            f"The log of TensorRT for RTX {version} can't be parsed, so layers can't be checked; install "
            f"{KNOWN_VERSIONS[-1]}x with `pip install 'tensorrt-rtx=={KNOWN_VERSIONS[-1]}*'`."
        )
    return layers_of_log(json.loads((folder / "log.json").read_text()))
