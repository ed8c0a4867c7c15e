"""Loading an engine and running it once in a separate process, before the caller's process does.

An engine is native code: a wrong one can crash the process that loads it, hang it, or take all memory. So the caller
starts ``python -m rexport.runtimes.engine_trial``, writes one line of JSON to its stdin and then the engine's bytes,
those that were hashed, and watches from outside how it ends. The process checks the installed packages, then the GPU,
and touches the bytes only if both fit. It answers with one line, ``{}`` or ``{"error": "a sentence", "kind": "..."}``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import convert

from rexport import _errors
from rexport._child import Child, ChildError, claim_stdout, end_with_parent
from rexport._errors import RexportError, UnavailableError
from rexport.engine_file import EngineFacts, require_loadable
from rexport.runtimes._engine_shapes import EngineShapes
from rexport.runtimes._installed import find_installed, import_backend, lean_library
from rexport.runtimes._tensorrt import LoadedEngine

__all__ = ["Limits", "load", "main", "try_out"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a trial.

    Attributes:
        seconds: The time. TensorRT for RTX compiles its kernels for the GPU while loading.
        memory_mib: This machine's memory, beyond four times the engine's size. It is watched, not limited by the
            system: CUDA reserves more addresses than any machine has memory.
    """

    seconds: float = 300.0
    memory_mib: int = 8192


def try_out(path: Path, data: bytes, facts: EngineFacts, limits: Limits | None = None) -> None:
    """Load an engine and run it once, in another process.

    Args:
        path: The engine's file, for messages.
        data: Its bytes, which were checked.
        facts: The facts beside it.
        limits: The limits of that process.

    Raises:
        UnavailableError: It can't be run here, or the process crashed, took too long, or too much memory.
        EngineFileError: ``facts`` describe another engine.
    """
    limits = limits or Limits()
    with Child("rexport.runtimes.engine_trial") as child:
        child.send("try", path=str(path), facts=asdict(facts))
        child.send_last(data)
        try:
            child.receive(limits.seconds, most_mib=limits.memory_mib + 4 * len(data) / 2**20)
        except ChildError as error:
            if error.kind not in ("Died", "TimeoutError", "MemoryError"):
                raise getattr(_errors, error.kind, RexportError)(str(error)) from error
            raise UnavailableError(
                f"{path} can't be used here: trying it out failed. {error} Build it again on this device with `rexport "
                "engine`, and look at `rexport doctor`."
            ) from error


def load(path: Path, data: bytes, facts: EngineFacts, *, cuda_graph: bool = True) -> LoadedEngine:
    """Load an engine in this process, if what is installed here fits.

    Raises:
        UnavailableError: It does not, or TensorRT can't load it.
        EngineFileError: ``facts`` describe another engine.
    """
    installed = find_installed(facts.backend)
    require_loadable(path, facts, installed)
    trt = import_backend(facts.backend)
    lean = lean_library() if installed.version != facts.version else None
    natively = hasattr(trt, "CudaGraphStrategy")  # TensorRT for RTX captures graphs itself, as its kernels change
    engine = LoadedEngine(
        trt,
        data,
        lean=lean,
        captures=cuda_graph and not natively,
        configure=lambda loaded: _configured(trt, loaded, cuda_graph=cuda_graph),
    )
    difference = EngineShapes.of_facts(facts).difference(engine.shapes)
    if difference is not None:
        engine.close()
        raise _errors.EngineFileError(f"{path} does not match the file beside it: it has {difference}.")
    return engine


def main() -> None:
    """Try the engine on stdin out."""
    replies = claim_stdout()
    _without_core_dump()
    end_with_parent()
    request = json.loads(sys.stdin.buffer.readline())
    try:
        _try(Path(request["path"]), sys.stdin.buffer.read(), convert(request["facts"], EngineFacts))
        reply: dict[str, str] = {}
    except RexportError as error:
        reply = {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # the bindings raise their own
        reply = {"error": f"TensorRT failed: {' '.join(str(error).split())}", "kind": "UnavailableError"}
    print(json.dumps(reply), file=replies, flush=True)
    os._exit(0)  # libraries that crash while they are unloaded have done their work


def _try(path: Path, data: bytes, facts: EngineFacts) -> None:
    engine = load(path, data, facts)
    profile = engine.shapes.profiles[0]
    memory = engine.memory(profile.best, profile.index)  # runs it
    images = engine.shapes.images
    memory.upload(np.zeros(images.at(profile.best), images.dtype))
    memory.compute()  # as a graph, if it is one
    memory.download()


def _configured(trt: Any, engine: Any, *, cuda_graph: bool) -> tuple[Any, ...]:
    """Return the configuration of TensorRT for RTX; TensorRT has nothing to configure."""
    if not hasattr(trt, "CudaGraphStrategy") or not hasattr(engine, "create_runtime_config"):
        return ()
    config = engine.create_runtime_config()
    strategy = trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
    # kernels for the shape at its first call: by default they come later, from another thread, amid a measurement
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return (config,)


def _without_core_dump() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
