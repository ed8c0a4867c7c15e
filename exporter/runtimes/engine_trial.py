"""Loading an engine and running it once in a process of its own, before anyone else's does.

An engine is native code: a wrong one can crash the process that loads it, hang it, or take all memory. So the caller
starts ``python -m rexport.runtimes.engine_trial``, writes one line of JSON to its stdin and then the engine's bytes,
those that were hashed, and sees from outside how it ends. The process looks at what is installed, then at the GPU, and
touches the bytes only if both fit. It answers with one line, ``{}`` or ``{"error": "a sentence", "kind": "..."}``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from msgspec import convert

from rexport import _errors
from rexport._errors import RexportError, UnavailableError
from rexport.engine_file import EngineFacts, require_loadable
from rexport.runtimes._engine_shapes import EngineShapes
from rexport.runtimes._installed import find_installed, import_backend, lean_library
from rexport.runtimes._stdout import claim_stdout
from rexport.runtimes._tensorrt import LoadedEngine

__all__ = ["Limits", "load", "main", "try_out"]

_EVERY = 0.05  # seconds between two looks at a process


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a trial may take.

    Attributes:
        seconds: Of time. TensorRT for RTX compiles its kernels for the GPU while loading.
        memory_mib: Of this machine's memory, beyond four times the engine's size. It is watched, not limited by the
            system: CUDA reserves more addresses than any machine has memory.
    """

    seconds: float = 300.0
    memory_mib: int = 8192


def try_out(path: Path, data: bytes, facts: EngineFacts, limits: Limits | None = None) -> None:
    """Load an engine and run it once, in another process.

    Args:
        path: The engine's file, for messages.
        data: Its bytes, which were checked.
        facts: What lies beside it.
        limits: What that may take.

    Raises:
        UnavailableError: It can't be run here, or the process crashed, took too long, or too much memory.
        EngineFileError: It is not what ``facts`` say.
    """
    limits = limits or Limits()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rexport.runtimes.engine_trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            reply = _converse(process, str(path), data, facts)
            why = _watch(process, limits, most_mib=limits.memory_mib + 4 * len(data) // 2**20)
        finally:
            process.kill()
            process.wait()
        said = reply.result()
        if why is None and said is None:
            why = _crash(process.returncode, log)
    if why is not None:
        raise UnavailableError(
            f"{path} can't be used here: the process that tried it out {why} Build it again on this device with "
            "`rexport engine`, and look at `rexport doctor`."
        )
    assert said is not None
    if "error" in said:
        raise getattr(_errors, said["kind"], RexportError)(said["error"])


def load(path: Path, data: bytes, facts: EngineFacts, *, cuda_graph: bool = True) -> LoadedEngine:
    """Load an engine in this process, if what is installed here fits.

    Raises:
        UnavailableError: It does not, or TensorRT can't load it.
        EngineFileError: It is not what ``facts`` say.
    """
    here = find_installed(facts.backend)
    require_loadable(path, facts, here)
    trt = import_backend(facts.backend)
    natively = hasattr(trt, "CudaGraphStrategy")  # TensorRT for RTX captures graphs itself, as its kernels change
    engine = LoadedEngine(
        trt,
        data,
        lean=lean_library() if here.version != facts.version else None,
        captures=cuda_graph and not natively,
        configure=lambda one: _configured(trt, one, cuda_graph=cuda_graph),
    )
    difference = EngineShapes.of_facts(facts).difference(engine.shapes)
    if difference is not None:
        engine.close()
        raise _errors.EngineFileError(f"{path} is not what the file beside it says: it has {difference}.")
    return engine


def main() -> None:
    """Try the engine on stdin out."""
    replies = claim_stdout()
    _without_core_dump()
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        _try(Path(asked["path"]), sys.stdin.buffer.read(), convert(asked["facts"], EngineFacts))
        said: dict[str, str] = {}
    except RexportError as error:
        said = {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # the bindings raise their own
        said = {"error": f"TensorRT failed: {' '.join(str(error).split())}", "kind": "UnavailableError"}
    print(json.dumps(said), file=replies, flush=True)
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


class _Reply:
    """What a process says, read and written in threads so that neither waits for the other."""

    def __init__(self, process: subprocess.Popen[bytes], head: bytes, data: bytes) -> None:
        self._said = b""
        assert process.stdin is not None
        assert process.stdout is not None
        self._threads = (
            threading.Thread(target=self._write, args=(process.stdin, head, data), daemon=True),
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def result(self) -> dict[str, str] | None:
        for thread in self._threads:
            thread.join()
        try:
            said: dict[str, str] = json.loads(self._said)
        except ValueError:
            return None
        return said

    @staticmethod
    def _write(stream: IO[bytes], head: bytes, data: bytes) -> None:
        try:
            with stream:
                stream.write(head)
                stream.write(data)
        except OSError:  # it crashed; how is seen where it is waited for
            return

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            self._said = stream.read()


def _converse(process: subprocess.Popen[bytes], path: str, data: bytes, facts: EngineFacts) -> _Reply:
    stated = {key: value for key, value in facts.to_json().items() if key != "schema"}
    head = json.dumps({"path": path, "facts": stated}).encode() + b"\n"
    return _Reply(process, head, data)


def _watch(process: subprocess.Popen[bytes], limits: Limits, *, most_mib: int) -> str | None:
    """Wait for a process to end, and say which limit it broke."""
    end = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > end:
            return f"was still not done after {limits.seconds:g} seconds."
        if (took := _resident_mib(process.pid)) > most_mib:
            return f"took {took:,} MiB of memory, more than {most_mib:,}."
        time.sleep(_EVERY)
    return None


def _resident_mib(pid: int) -> int:
    """Return the memory that a process holds, in MiB; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(found[0]) // 2**10 if found else 0


def _crash(code: int, log: IO[bytes]) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})."
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"ended with exit code {code}" + (f": {lines[-1].strip().rstrip('.')}." if lines else ".")


def _without_core_dump() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
