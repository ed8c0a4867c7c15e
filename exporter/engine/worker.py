"""The process that builds an engine: ``python -m rexport.engine.worker``, with the folder of the work as its own.

It reads one JSON object from stdin, the options, and the model from ``model.onnx``; writes ``engine``, and to stdout a
JSON object a line: ``{"phase", "done", "of"}`` as the build goes on, and at last ``{"result": {...}}`` or
``{"error": "a sentence", "kind": "UnavailableError"}``. A crash of the compiler, and Ctrl-C, end this process alone.

TensorRT orders some of what it writes by the addresses of its objects. So that the same file gives the same bytes, the
process starts anew without randomized addresses where the system lets it, gets the same few environment variables, and
builds in a thread, whose memory (an arena of its own, in glibc) is as yet in one piece.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from rexport._errors import ModelFileError, RexportError, UnavailableError
from rexport.engine.options import BackendName
from rexport.runtimes._stdout import claim_stdout

__all__ = ["PACKAGES", "main"]

PACKAGES = {BackendName.TENSORRT: ("tensorrt", "rexport[tensorrt]"), BackendName.RTX: ("tensorrt_rtx", "rexport[rtx]")}
_FIXED_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)


def main() -> None:
    """Build what stdin asks for."""
    _start_without_random_addresses()
    replies = claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=replies, flush=True)

    def build(options: dict[str, Any]) -> None:
        try:
            say(result=_build(options, say))
        except RexportError as error:
            say(error=str(error), kind=type(error).__name__)
        except Exception as error:  # the bindings raise their own
            say(error=f"TensorRT failed: {' '.join(str(error).split())}", kind="RexportError")

    thread = threading.Thread(target=build, args=(json.loads(sys.stdin.read()),))
    thread.start()
    thread.join()


def _start_without_random_addresses() -> None:
    if sys.platform != "linux":
        return
    personality = ctypes.CDLL(None, use_errno=True).personality
    now = personality(0xFFFFFFFF)
    if now == -1 or now & _FIXED_ADDRESSES or personality(now | _FIXED_ADDRESSES) == -1:
        return
    os.execv(sys.executable, [sys.executable, "-P", "-m", "rexport.engine.worker"])


def _build(options: dict[str, Any], say: Any) -> dict[str, Any]:
    backend = BackendName(options["backend"])
    trt = _load(backend)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path("model.onnx").read_bytes()):
        raise ModelFileError(_why_not_parsed(parser))
    config = _config(trt, builder, options, say)
    config.add_optimization_profile(_profile(builder, network, options["batch"]))
    cache = _use_timing_cache(config, options["timing_cache"])
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        last = logger.errors[-1] if logger.errors else "it gives no reason"
        raise UnavailableError(f"TensorRT can't build this engine: {last}.")
    data = bytes(engine)
    Path("engine").write_bytes(data)
    if cache:
        Path("timing-cache").write_bytes(bytes(config.get_timing_cache().serialize()))
    if backend is BackendName.RTX:
        Path("log.json").write_text(json.dumps([text for text in logger.messages if "LayerType: " in text]))
    else:
        Path("layers.json").write_text(_inspected(trt, logger, data))
    return {
        "version": str(trt.__version__),
        "warnings": list(dict.fromkeys(logger.warnings)),
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
    }


def _load(backend: BackendName) -> Any:
    package, extra = PACKAGES[backend]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(
            f"The package {package} can't be imported ({error}); `pip install '{extra}'` brings it."
        ) from error


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append(message)
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message.rstrip(". \n"))
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message.strip())

    return Logger()


def _why_not_parsed(parser: Any) -> str:
    error = parser.get_error(0)
    operator, node = getattr(error, "node_operator", None), getattr(error, "node_name", None)
    where = f"at {node()} ({operator()}): " if operator is not None and node is not None and node() else ""
    return f"TensorRT can't read the model {where}{' '.join(error.desc().split()).rstrip('.')}."


def _config(trt: Any, builder: Any, options: dict[str, Any], say: Any) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = _monitor(trt, say)
    if options["workspace_mib"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] * 2**20)
    if options["optimization_level"] is not None:
        config.builder_optimization_level = options["optimization_level"]
    for name in options["flags"]:
        if not hasattr(trt.BuilderFlag, name):
            raise UnavailableError(f"{trt.__name__} {trt.__version__} has no {name}; leave that option out.")
        config.set_flag(getattr(trt.BuilderFlag, name))
    # weakly typed networks are all that TensorRT 10.0 to 10.3 surely have, and need to be told
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        for name in ("INT8", "FP16"):
            config.set_flag(getattr(trt.BuilderFlag, name))
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options["capabilities"]:
        config.num_compute_capabilities = len(options["capabilities"])
        for index, capability in enumerate(options["capabilities"]):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)
    return config


def _monitor(trt: Any, say: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps
            say(phase=phase_name, done=0, of=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            say(phase=phase_name, done=self.steps[phase_name], of=self.steps[phase_name])

        def step_complete(self, phase_name: str, step: int) -> bool:
            say(phase=phase_name, done=step + 1, of=self.steps[phase_name])
            return True

    return Monitor()


def _profile(builder: Any, network: Any, batch: list[int]) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        first, *rest = tensor.shape
        if -1 in rest:
            raise ModelFileError(
                f"The input {tensor.name} is open in more than its batch; export it for one size of pictures."
            )
        shapes = [(number if first == -1 else first, *rest) for number in batch]
        profile.set_shape(tensor.name, *shapes)
    return profile


def _use_timing_cache(config: Any, path: str | None) -> bool:
    if path is None:
        return False
    known = Path(path).read_bytes() if Path(path).exists() else b""
    config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    return True


def _inspected(trt: Any, logger: Any, data: bytes) -> str:
    """Return what TensorRT itself says of an engine's layers, as JSON; takes the GPU that it was built on."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        raise UnavailableError("TensorRT can't load the engine that it built.")
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": str(tensor.dtype).rpartition(".")[2].lower(), "shape": list(tensor.shape)}


if __name__ == "__main__":
    main()
