"""An engine file: its header and the file beside it; it is never loaded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rexport._files import file_sha256
from rexport.engine_file import intact_facts, is_engine, read_header
from rexport.inspection.report import FileReport, Table, tensor_facts

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.engine_file import EngineFacts

__all__ = ["describe", "recognises"]


def recognises(path: Path, head: bytes) -> bool:
    """Say whether a file is an engine, or has the suffix of one."""
    return head.startswith(b"vtrt") or is_engine(path)


def describe(path: Path) -> FileReport:
    """Describe an engine.

    Raises:
        EngineFileError: It is none, or damaged.
    """
    header, facts, digest = read_header(path), intact_facts(path), file_sha256(path)
    document = {
        "bytes": header.size,
        "sha256": digest,
        "version": header.version,
        "capabilities": list(header.capabilities),
        "facts": facts and facts.to_json(),
    }
    gpus = ", ".join(map(str, header.capabilities)) or "unknown"
    lines = [
        ("engine", f"{header.size / 2**20:.1f} MiB of TensorRT {header.version}, by its header"),
        ("GPUs", f"compute capabilities {gpus}"),
        ("sha256", digest),
    ]
    if facts is None:
        lines.append(("made by", "unknown: no file lies beside it"))
        return FileReport(kind="engine", facts=tuple(lines), tables=(), document=document)
    return FileReport(kind="engine", facts=(*lines, *_facts(facts)), tables=(_layers(facts),), document=document)


def _facts(facts: EngineFacts) -> list[tuple[str, str]]:
    counts = Counter(layer["precision"] for layer in facts.layers)
    return [
        ("built by", f"{facts.backend} {facts.version} in {facts.seconds:.1f} s: {facts.command or 'from Python'}"),
        ("from", f"{facts.onnx}, sha256 {facts.onnx_sha256}"),
        ("batch", ":".join(map(str, facts.batch))),
        *tensor_facts(facts.inputs, facts.outputs),
        ("layers", ", ".join(f"{count} in {precision}" for precision, count in counts.items())),
        *(("repaired", text) for text in facts.repairs),
    ]


def _layers(facts: EngineFacts) -> Table:
    return Table(
        title="What TensorRT made of the layers that multiply",
        columns=("layer", "operator", "precision"),
        rows=tuple((layer["name"], layer["op_type"], layer["precision"]) for layer in facts.layers),
    )
