"""An ONNX file that holds an engine: what its ``EPContext`` nodes say, and the file beside it; it is never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._files import file_sha256
from rexport.engine.context_file import holds_engine, read_context_file
from rexport.engine_file import intact_facts
from rexport.inspection.report import FileReport, Table

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
        EngineFileError: An engine is missing or empty, or the file is not the one that lies beside it in words.
    """
    found = read_context_file(path)
    facts = intact_facts(path)
    digest = file_sha256(path) if facts is None else facts.sha256
    stated = [
        ("ONNX file", f"{path.stat().st_size / 2**20:.1f} MiB that hold a compiled engine, for ONNX Runtime alone"),
        ("sha256", digest),
        *(("input", f"{one['name']}: {one['dtype']} {one['shape']}") for one in found.inputs),
        *(("output", f"{one['name']}: {one['dtype']} {one['shape']}") for one in found.outputs),
        ("outside", found.outside_in_words or "nothing: all of the model is in the engine"),
    ]
    if facts is not None:
        made = f"{facts.backend} {facts.version} in {facts.seconds:.1f} s: {facts.command or 'from Python'}"
        stated += [("built by", made), ("for", facts.device or "an unknown GPU")]
        stated += [("from", f"{facts.onnx}, sha256 {facts.onnx_sha256}")]
    else:
        stated.append(("made by", "unknown: no file lies beside it"))
    return FileReport(
        kind="onnx-engine",
        facts=tuple(stated),
        tables=(_parts(found.parts),),
        document={
            "bytes": path.stat().st_size,
            "sha256": digest,
            "parts": [part.to_json() for part in found.parts],
            "outside": found.outside,
            "inputs": list(found.inputs),
            "outputs": list(found.outputs),
            "facts": None if facts is None else facts.to_json(),
        },
    )


def _parts(parts: tuple[CompiledPart, ...]) -> Table:
    rows = tuple(
        (
            part.name,
            f"{part.bytes / 2**20:.1f} MiB" if part.main else "that of another part",
            part.engine_file or ("in this file" if part.embedded and part.main else ""),
            part.hardware,
            " ".join(filter(None, (part.source, part.sdk_version))),
            part.onnx,
        )
        for part in parts
    )
    columns = ("part", "engine", "where", "GPU", "made by", "compiled from")
    return Table(title="What was compiled", columns=columns, rows=rows, left=(0, 2, 3, 4, 5))
