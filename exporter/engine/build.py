"""Building an engine from an ONNX file, and checking the precision of its layers before anyone deploys it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport._errors import GateError
from rexport._files import atomic_path, check_writable, file_sha256, write_text
from rexport._progress import Progress, silent
from rexport._version import __version__
from rexport._words import first_few
from rexport.classifier_head import head_of
from rexport.engine.compile import Compiled, compile_model, quantized_layers
from rexport.engine.options import batch_of, check_capabilities
from rexport.engine.rules import follow_rules
from rexport.engine_file import BackendName, EngineFacts, facts_path
from rexport.model_file import Metadata, load
from rexport.passes._graph import WEIGHTED, is_op, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from rexport.engine.options import BuildOptions
    from rexport.engine.rules import Repair

__all__ = ["BuiltEngine", "Compiled", "build_engine", "compile_model"]

_INTEGER = "Int8"
_WORDS = {"Int8": "int8", "Half": "float16", "Float": "float32", "BFloat16": "bfloat16"}
_METADATA = "rexport."


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """The bytes of an engine, and the facts that are stored beside it."""

    data: bytes
    facts: EngineFacts

    def save(self, path: Path) -> None:
        """Write the file beside the engine and then the engine, each whole or not at all.

        Raises:
            OutputError: They can't be written.
        """
        check_writable(path)
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.data)
            write_text(facts_path(path), json.dumps(self.facts.to_json(), indent=1) + "\n")


def build_engine(model: Path, options: BuildOptions, *, command: str = "", progress: Progress = silent) -> BuiltEngine:
    """Build an engine in a process of its own, and check that every quantized layer runs in integers.

    Args:
        model: An ONNX file; for integers, one of ``rexport quantize --target tensorrt``.
        options: What to build it for. With the backend ``onnxruntime`` the engine is an ONNX file that holds one, and
            nothing is known about its layers but that they are in it.
        command: The command to record in the facts.
        progress: Reports the phases of the build.

    Raises:
        ModelFileError: The file breaks a rule of TensorRT, or TensorRT can't read it.
        UsageError: The file insists on other batches than the options name.
        UnavailableError: The backend is not installed, does not compile for a GPU that was named, or its compiler
            ended in a crash.
        GateError: A quantized layer came out in float.
        VerificationError: The precision of a layer can't be determined.
    """
    options = replace(options, capabilities=check_capabilities(options.backend, options.capabilities))
    source = load(model)
    options = replace(options, batch=batch_of(source, options.batch))
    prepared, repairs = follow_rules(source)
    if options.backend is BackendName.ONNXRUNTIME:
        from rexport.engine.context import compile_context

        compiled = compile_context(prepared, options, name=model.name, progress=progress)
        layers = {}
    else:
        compiled = compile_model(prepared, options, progress=progress)
        layers = _products(prepared)
        _require_integers(prepared, compiled.precisions)
    return BuiltEngine(data=compiled.data, facts=_facts(model, source, options, compiled, layers, repairs, command))


def _facts(
    path: Path,
    source: ir.Model,
    options: BuildOptions,
    compiled: Compiled,
    layers: Mapping[str, str],
    repairs: tuple[Repair, ...],
    command: str,
) -> EngineFacts:
    reply = compiled.reply
    return EngineFacts(
        backend=options.backend,
        version=reply["version"],
        capabilities=tuple(reply.get("capabilities", options.capabilities)),
        device=reply.get("device"),
        cuda=reply.get("cuda"),
        batch=options.batches,
        inputs=tuple(reply["inputs"]),
        outputs=tuple(reply["outputs"]),
        layers=tuple(
            {"name": node, "op_type": operator, "precision": _WORDS.get(compiled.precisions.get(node, ""), "float")}
            for node, operator in layers.items()
        ),
        sha256=hashlib.sha256(compiled.data).hexdigest(),
        bytes=len(compiled.data),
        onnx=path.name,
        onnx_sha256=file_sha256(path),
        repairs=tuple(map(str, repairs)),
        warnings=tuple(reply["warnings"]),
        seconds=compiled.seconds,
        command=command,
        rexport=__version__,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        metadata=_metadata(source),
        stripped=options.strip,
    )


def _metadata(model: ir.Model) -> dict[str, str]:
    """Return rexport's metadata of a file, and a classifier's head, which can't be read from an engine's graph."""
    properties = {key: text for key, text in model.metadata_props.items() if key.startswith(_METADATA)}
    if not Metadata.of(model).features:
        properties[f"{_METADATA}head"] = str(head_of(model))
    return properties


def _require_integers(model: ir.Model, precisions: Mapping[str, str]) -> None:
    floating = [name for name in quantized_layers(model) if precisions[name] != _INTEGER]
    if floating:
        raise GateError(
            f"{len(floating)} layers that the file quantizes came out in float, {first_few(floating)}; no "
            "engine was written. Quantize with `rexport quantize --target tensorrt`, or report this file."
        )


def _products(model: ir.Model) -> dict[str, str]:
    """Return the names of the layers that multiply, and their operators."""
    return {name_of(node): node.op_type for node in model.graph if is_op(node, *WEIGHTED)}
