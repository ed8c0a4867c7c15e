"""Building an engine from an ONNX file, and checking what came of it before anyone deploys it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._errors import GateError, RexportError, UnavailableError
from rexport._files import atomic_path, check_writable, write_text
from rexport._progress import Progress, silent
from rexport.engine.build_log import KNOWN_VERSIONS, BuiltLayer, layers_of_log, types_of_products
from rexport.engine.inspector import types_of_inspected
from rexport.engine.options import BackendName, check_capabilities
from rexport.engine.rules import follow_rules
from rexport.engine_file import EngineFacts, facts_path
from rexport.model_file import load, to_bytes
from rexport.passes._graph import is_op, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from rexport.engine.options import BuildOptions

__all__ = ["BuiltEngine", "Compiled", "build_engine", "compile_model"]

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER = "Int8"
_WORDS = {"Int8": "int8", "Half": "float16", "Float": "float32", "BFloat16": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine, its bytes, and what is to be known of it."""

    data: bytes
    facts: EngineFacts

    def save(self, path: Path) -> None:
        """Write the engine, and the file beside it, each whole or not at all; the engine is there last.

        Raises:
            OutputError: They can't be written.
        """
        check_writable(path)
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.data)
            write_text(facts_path(path), json.dumps(self.facts.to_json(), indent=1) + "\n")


def build_engine(model: Path, options: BuildOptions, *, command: str = "", progress: Progress = silent) -> BuiltEngine:
    """Build an engine in a process of its own, and check that every layer that the file quantizes came out in integers.

    Args:
        model: An ONNX file; for integers, one of ``rexport quantize --target tensorrt``.
        options: What to build it for.
        command: What is kept as the command that built it.
        progress: Told of the phases of the build.

    Raises:
        ModelFileError: The file breaks a rule of TensorRT, or TensorRT can't read it.
        UnavailableError: The backend is not installed, does not compile for a GPU that was named, or its compiler
            ended in a crash.
        GateError: A layer that the file quantizes came out in float.
        VerificationError: What became of a layer can't be told.
    """
    capabilities = check_capabilities(options.backend, options.capabilities)
    source = load(model)
    prepared, repairs = follow_rules(source)
    compiled = compile_model(prepared, replace(options, capabilities=capabilities), progress=progress)
    said, precisions = compiled.said, compiled.precisions
    _require_integers(prepared, precisions)
    facts = EngineFacts(
        backend=str(options.backend),
        version=said["version"],
        capabilities=capabilities,
        device=said.get("device"),
        cuda=said.get("cuda"),
        batch=(options.batch.least, options.batch.best, options.batch.most),
        inputs=tuple(said["inputs"]),
        outputs=tuple(said["outputs"]),
        layers=tuple(
            {"name": node, "op_type": operator, "precision": _WORDS.get(precisions.get(node, ""), "float")}
            for node, operator in _products(prepared).items()
        ),
        sha256=hashlib.sha256(compiled.data).hexdigest(),
        bytes=len(compiled.data),
        onnx=model.name,
        onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        repairs=tuple(map(str, repairs)),
        warnings=tuple(said["warnings"]),
        seconds=compiled.seconds,
        command=command,
        rexport=metadata.version("rexport"),
    )
    return BuiltEngine(data=compiled.data, facts=facts)


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a worker made of a model.

    Attributes:
        data: The engine.
        said: Versions, warnings, inputs and outputs.
        precisions: The type that each layer which the file quantizes reads, as TensorRT calls it.
        layers: All layers that the build's log lists; none of ``tensorrt``, whose inspector is asked.
        seconds: That it took.
    """

    data: bytes
    said: Mapping[str, Any]
    precisions: Mapping[str, str]
    layers: tuple[BuiltLayer, ...]
    seconds: float


def compile_model(model: ir.Model, options: BuildOptions, *, progress: Progress = silent) -> Compiled:
    """Compile a model that keeps TensorRT's rules in a process of its own; its nodes get names if they have none.

    Raises:
        ModelFileError: TensorRT can't read the model.
        UnavailableError: The backend is not installed, or its compiler ended in a crash.
        VerificationError: What became of a layer can't be told.
    """
    _name_nodes(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(to_bytes(model))
        start = time.perf_counter()
        said = _run(folder, _arguments(options), progress)
        seconds = time.perf_counter() - start
        layers = _layers(folder, said["version"]) if options.backend is BackendName.RTX else ()
        names = _quantized(model)
        precisions = types_of_products(layers, names) if layers else _inspected(folder, names)
        if options.timing_cache is not None:
            with atomic_path(options.timing_cache) as temporary:
                temporary.write_bytes((folder / "timing-cache").read_bytes())
        return Compiled(
            data=(folder / "engine").read_bytes(), said=said, precisions=precisions, layers=layers, seconds=seconds
        )


def _arguments(options: BuildOptions) -> dict[str, Any]:
    flags = [
        *(["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"] if options.version_compatible else []),
        *(["REFIT"] if options.refittable else []),
    ]
    return {
        "backend": str(options.backend),
        "capabilities": list(options.capabilities),
        "batch": [options.batch.least, options.batch.best, options.batch.most],
        "workspace_mib": options.workspace_mib,
        "optimization_level": options.optimization_level,
        "timing_cache": options.timing_cache and str(options.timing_cache.absolute()),
        "hardware_compatible": options.hardware_compatible,
        "flags": flags,
    }


def _run(folder: Path, arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Let a worker build in ``folder``, and return what it says of the engine."""
    with ExitStack() as stack:
        log = stack.enter_context((folder / "stderr").open("w+"))
        worker = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "rexport.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=_environment(),
            )
        )
        stack.callback(worker.kill)
        assert worker.stdin is not None
        assert worker.stdout is not None
        json.dump(arguments, worker.stdin)
        worker.stdin.close()
        advance = stack.enter_context(progress("building the engine", None))
        for line in worker.stdout:
            said = json.loads(line)
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            if "error" in said:
                raise getattr(_errors, said["kind"], RexportError)(said["error"])
            advance(1)
        code = worker.wait()
        log.seek(0)
        last = (log.read().strip().splitlines() or ["it said nothing"])[-1]
        raise UnavailableError(f"TensorRT's compiler ended with exit code {code} ({last}); nothing was written.")


def _environment() -> dict[str, str]:
    """Return what a worker needs of the environment: the same few variables, as each moves addresses."""
    kept = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HOME", "SYSTEMROOT", "TEMP", "PYTHONPATH")
    return {"PYTHONHASHSEED": "0"} | {name: os.environ[name] for name in kept if name in os.environ}


def _layers(folder: Path, version: str) -> tuple[BuiltLayer, ...]:
    if not version.startswith(KNOWN_VERSIONS):
        raise UnavailableError(
            f"The log of TensorRT for RTX {version} is not known, so that layers can't be checked; install "
            f"{KNOWN_VERSIONS[-1]}x with `pip install 'tensorrt-rtx=={KNOWN_VERSIONS[-1]}*'`."
        )
    return layers_of_log(json.loads((folder / "log.json").read_text()))


def _inspected(folder: Path, names: Iterable[str]) -> Mapping[str, str]:
    return types_of_inspected(json.loads((folder / "layers.json").read_text()), names)


def _require_integers(model: ir.Model, precisions: Mapping[str, str]) -> None:
    floating = [name for name in _quantized(model) if precisions[name] != _INTEGER]
    if floating:
        raise GateError(
            f"{len(floating)} layers that the file quantizes came out in float, {', '.join(floating[:3])}"
            f"{' …' if len(floating) > 3 else ''}; no engine was written. Quantize with `rexport quantize --target "
            "tensorrt`, or report this file."
        )


def _products(model: ir.Model) -> dict[str, str]:
    """Return the names of the layers that multiply, and their operators."""
    return {name_of(node): node.op_type for node in model.graph if is_op(node, *_PRODUCTS)}


def _quantized(model: ir.Model) -> list[str]:
    """Return the names of the layers that read what they multiply, weight included, through DequantizeLinear."""
    return [
        name_of(node)
        for node in model.graph
        if is_op(node, *_PRODUCTS)
        and all(is_op(value.producer(), "DequantizeLinear") for value in node.inputs[:2] if value is not None)
    ]


def _name_nodes(model: ir.Model) -> None:
    """Give every node a name, by which TensorRT's log tells of it."""
    for node in model.graph:
        node.name = name_of(node)
