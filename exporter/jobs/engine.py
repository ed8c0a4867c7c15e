"""Engines: a TensorRT engine from an ONNX file, or the weights of one filled into an engine without any."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rexport._apart import READ, WRITE, require_files_apart
from rexport._errors import UsageError
from rexport._files import check_writable
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import in_units
from rexport.engine import build_engine, refit_engine
from rexport.engine_file import BackendName, facts_path
from rexport.jobs.result import JobResult

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.engine import BuildOptions
    from rexport.engine_file import EngineFacts

__all__ = ["EngineRequest", "EngineResult", "run"]


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What to build, or to refit.

    Attributes:
        model: An ONNX file, quantized for TensorRT or float.
        output: Where the engine goes; the file that describes it goes beside it.
        options: What to build it for.
        refit: An engine without weights, built from ``model``, to fill them into; nothing is built then.
        command: What was typed, for the file beside the engine.

    Raises:
        UsageError: The name of the file does not fit its kind.
    """

    model: Path = field(metadata=READ)
    output: Path = field(metadata=WRITE)
    options: BuildOptions
    refit: Path | None = field(default=None, metadata=READ)
    command: str = ""

    def __post_init__(self) -> None:
        named_onnx = self.output.suffix.lower() == ".onnx"
        is_onnx = self.options.backend is BackendName.ONNXRUNTIME and self.refit is None
        if is_onnx and not named_onnx:
            named = self.output.with_suffix(".onnx")
            raise UsageError(f"ONNX Runtime writes an ONNX file; call it {named}, not {self.output}.")
        if named_onnx and not is_onnx:
            named = self.output.with_suffix(".engine")
            raise UsageError(f"An engine is not an ONNX file; call it {named}, not {self.output}.")

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """The file that describes the engine."""
        return (facts_path(self.output),)


@dataclass(frozen=True, kw_only=True, repr=False)
class EngineResult(JobResult):
    """The ``engine`` that was written, as the file beside it describes it."""

    request: EngineRequest
    engine: EngineFacts

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.engine/1``, with the name of the file."""
        return {**self.engine.to_json(), "file": str(self.request.output)}

    def facts(self) -> dict[str, str]:
        """Return the file, what built it, and the precisions of its layers."""
        engine = self.engine
        counts = Counter(f"{layer['op_type']} in {layer['precision']}" for layer in engine.layers)
        return {
            "file": f"{self.request.output}, {in_units(engine.bytes)}",
            "built by": f"{engine.backend} {engine.version}",
            "GPUs": ", ".join(map(str, engine.capabilities)) or engine.device or "this machine's",
            "layers": ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "not reported",
        }


def run(request: EngineRequest, *, progress: Progress = silent, note: Note = unsaid) -> EngineResult:
    """Build or refit the engine, check it, and write it with the file that describes it.

    Raises:
        RexportError: As :func:`rexport.engine.build_engine` and :func:`rexport.engine.refit_engine`.
        OutputError: The engine can't be written.
    """
    require_files_apart(request)
    check_writable(request.output)
    if request.refit is None:
        built = build_engine(request.model, request.options, command=request.command, progress=progress)
    else:
        built = refit_engine(request.refit, request.model, command=request.command, progress=progress)
    built.save(request.output)
    for text in (*built.facts.repairs, *built.facts.warnings):
        note(text)
    return EngineResult(request=request, engine=built.facts)
