"""An ONNX file that holds an engine: its ``EPContext`` nodes and the file beside it; it is never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._files import file_sha256
from rexport.engine.context_file import holds_engine, read_context_file
from rexport.engine_file import intact_facts
from rexport.inspection.report import FileReport, Table, tensor_facts

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.engine.context_file import CompiledPart

__all__ = ["describe", "recognises"]

_STARTS_ONNX = 0x08  # the tag of ir_version, the first field


def recognises(path: Path, head: bytes) -> bool:
    """Say whether a file is an ONNX file that holds an engine."""
    return head[:1] == bytes([_STARTS_ONNX]) and holds_engine(path)


def describe(path: Path) -> FileReport:
    """Describe an ONNX file that holds engines.

    Raises:
        EngineFileError: An engine is missing or empty, or the facts beside the file are of another one.
    """
    context, facts, digest = read_context_file(path), intact_facts(path), file_sha256(path)
    lines = [
        ("ONNX file", f"{path.stat().st_size / 2**20:.1f} MiB that hold a compiled engine, for ONNX Runtime alone"),
        ("sha256", digest),
        *tensor_facts(context.inputs, context.outputs),
        ("outside", context.outside_in_words or "nothing: all of the model is in the engine"),
    ]
    if facts is None:
        lines.append(("made by", "unknown: no file lies beside it"))
    else:
        lines += [
            ("built by", f"{facts.backend} {facts.version} in {facts.seconds:.1f} s: {facts.command or 'from Python'}"),
            ("for", facts.device or "an unknown GPU"),
            ("from", f"{facts.onnx}, sha256 {facts.onnx_sha256}"),
        ]
    return FileReport(
        kind="onnx-engine",
        facts=tuple(lines),
        tables=(_parts(context.parts),),
        document={
            "bytes": path.stat().st_size,
            "sha256": digest,
            "parts": [part.to_json() for part in context.parts],
            "outside": context.outside,
            "inputs": list(context.inputs),
            "outputs": list(context.outputs),
            "facts": facts and facts.to_json(),
        },
    )


def _parts(parts: tuple[CompiledPart, ...]) -> Table:
    columns = ("part", "engine", "where", "GPU", "made by", "compiled from")
    return Table(title="What was compiled", columns=columns, rows=tuple(map(_row, parts)), left=(0, 2, 3, 4, 5))


def _row(part: CompiledPart) -> tuple[str, ...]:
    size, place = "that of another part", part.engine_file or ""
    if part.main:
        size, place = f"{part.bytes / 2**20:.1f} MiB", part.engine_file or "in this file"
    maker = " ".join(filter(None, (part.source, part.sdk_version)))
    return part.name, size, place, part.hardware, maker, part.onnx
