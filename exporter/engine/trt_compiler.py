"""Building and refitting with the packages ``tensorrt`` (10.3 to 11) and ``tensorrt_rtx``, in a worker's process.

What they have in common is used; the rest is asked for with ``hasattr``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rexport._errors import ModelFileError, UnavailableError
from rexport.engine.gpu import facts_of_gpu, this_gpu
from rexport.engine_file import BackendName
from rexport.runtimes._installed import import_backend

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build", "refit"]

_TAKE_A_GPU = {"STRIP_PLAN": "weights stripped", "REFIT": "refittable weights"}


class _Say(Protocol):
    def __call__(self, **fields: Any) -> None: ...


def build(options: Mapping[str, Any], say: _Say) -> dict[str, Any]:
    """Build ``engine`` from ``model.onnx``, and return its version, warnings, inputs and outputs, and the GPU.

    Raises:
        ModelFileError: TensorRT can't read the model.
        UnavailableError: The package is not there, or can't build what was asked for here.
    """
    backend = BackendName(options["backend"])
    trt = _load(backend)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path("model.onnx").read_bytes()):
        raise ModelFileError(_why_not_parsed(parser))
    config = _config(trt, builder, options, say)
    config.add_optimization_profile(_profile(builder, network, options["batch"]))
    cache = _use_timing_cache(config, options["timing_cache"])
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UnavailableError(_why_not_built(logger, options["flags"]))
    data = bytes(engine)
    Path("engine").write_bytes(data)
    if cache:
        Path("timing-cache").write_bytes(bytes(config.get_timing_cache().serialize()))
    if backend is BackendName.RTX:
        Path("log.json").write_text(json.dumps([text for text in logger.messages if "LayerType: " in text]))
    else:
        Path("layers.json").write_text(_inspected(trt, logger, data))
    facts = {
        "version": str(trt.__version__),
        "warnings": list(dict.fromkeys(logger.warnings)),
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
    }
    if backend is BackendName.TENSORRT:
        facts |= facts_of_gpu()
    return facts


def refit(options: Mapping[str, Any], say: _Say) -> dict[str, Any]:  # noqa: ARG001 (it takes no time to speak of)
    """Fill the weights of ``model.onnx`` into the engine ``stripped``, and write ``engine``.

    Raises:
        UnavailableError: The package is not there, of another version, can't load the engine, or does not take them.
    """
    trt = _load(BackendName(options["backend"]))
    if str(trt.__version__) != options["version"]:
        raise UnavailableError(
            f"The engine was built by {trt.__name__} {options['version']}, and this device has {trt.__version__}; "
            "build it again."
        )
    if this_gpu() is None:
        raise UnavailableError("Refitting an engine needs the NVIDIA GPU that it was built for; there is none here.")
    logger = _logger(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(Path("stripped").read_bytes())
    if engine is None:
        raise UnavailableError(f"TensorRT can't load the engine: {_last_error(logger)}.")
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_bytes(Path("model.onnx").read_bytes()) or not refitter.refit_cuda_engine():
        raise UnavailableError(f"TensorRT rejects the weights: {_last_error(logger)}.")
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)  # which an engine that was stripped has
    Path("engine").write_bytes(bytes(engine.serialize_with_config(config)))
    return {"version": str(trt.__version__), "warnings": list(dict.fromkeys(logger.warnings)), **facts_of_gpu()}


def _load(backend: BackendName) -> Any:
    trt = import_backend(str(backend))
    if backend is BackendName.TENSORRT and this_gpu() is None:  # without a driver it may crash later
        raise UnavailableError(
            "TensorRT builds for this machine's NVIDIA GPU, and there is none; `--backend rtx` builds without one."
        )
    return trt


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
    where = ""
    if hasattr(error, "node_operator") and hasattr(error, "node_name") and error.node_name():
        where = f"at {error.node_name()} ({error.node_operator()}): "
    return f"TensorRT can't read the model {where}{' '.join(error.desc().split()).rstrip('.')}."


def _why_not_built(logger: Any, flags: list[str]) -> str:
    options = [words for flag, words in _TAKE_A_GPU.items() if flag in flags]
    if options and this_gpu() is None:
        return (
            f"TensorRT for RTX needs an NVIDIA GPU to build engines with {' and '.join(options)}, and there "
            "is none here; leave out --strip and --refittable, or build on a machine that has one."
        )
    return f"TensorRT can't build this engine: {_last_error(logger)}."


def _last_error(logger: Any) -> str:
    return next(reversed(logger.errors), "it gives no reason")


def _config(trt: Any, builder: Any, options: Mapping[str, Any], say: _Say) -> Any:
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


def _monitor(trt: Any, say: _Say) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            say(phase=phase_name, within=parent_phase or "", of=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            say(phase=phase_name, done=step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            say(phase=phase_name, ends=True)

    return Monitor()


def _profile(builder: Any, network: Any, batch: list[int]) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        size, *sides = tensor.shape
        if -1 in sides:
            raise ModelFileError(
                f"The input {tensor.name} has dynamic dimensions besides the batch; export it for one picture size."
            )
        shapes = [(number if size == -1 else size, *sides) for number in batch]
        profile.set_shape(tensor.name, *shapes)
    return profile


def _use_timing_cache(config: Any, path: str | None) -> bool:
    if path is None:
        return False
    timings = Path(path).read_bytes() if Path(path).exists() else b""
    config.set_timing_cache(config.create_timing_cache(timings), ignore_mismatch=False)
    return True


def _inspected(trt: Any, logger: Any, data: bytes) -> str:
    """Return TensorRT's own description of an engine's layers, as JSON; takes the GPU that it was built on."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        raise UnavailableError("TensorRT can't load the engine that it built.")
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": str(tensor.dtype).rpartition(".")[2].lower(), "shape": list(tensor.shape)}
