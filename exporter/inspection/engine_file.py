"""An engine file: what its header and the file beside it say; it is never loaded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rexport._files import file_sha256
from rexport.engine_file import intact_facts, read_header
from rexport.inspection.report import FileReport, Table

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.engine_file import EngineFacts

__all__ = ["describe", "recognises"]

_SUFFIXES = (".engine", ".plan", ".trt")


def recognises(path: Path, head: bytes) -> bool:
    """Say whether a file is an engine, or is called one."""
    return head.startswith(b"vtrt") or path.suffix.lower() in _SUFFIXES


def describe(path: Path) -> FileReport:
    """Describe an engine.

    Raises:
        EngineFileError: It is none, or damaged.
    """
    header = read_header(path)
    facts = intact_facts(path)
    digest = file_sha256(path) if facts is None else facts.sha256
    document = {
        "bytes": header.size,
        "sha256": digest,
        "version": header.version,
        "capabilities": list(header.capabilities),
        "facts": None if facts is None else facts.to_json(),
    }
    gpus = ", ".join(map(str, header.capabilities)) or "unknown"
    stated = [
        ("engine", f"{header.size / 2**20:.1f} MiB of TensorRT {header.version}, by its header"),
        ("GPUs", f"compute capabilities {gpus}"),
        ("sha256", digest),
    ]
    return FileReport(
        kind="engine",
        facts=(*stated, *(_stated(facts) if facts is not None else [("made by", "unknown: no file lies beside it")])),
        tables=() if facts is None else (_layers(facts),),
        document=document,
    )


def _stated(facts: EngineFacts) -> list[tuple[str, str]]:
    counts = Counter(layer["precision"] for layer in facts.layers)
    return [
        ("built by", f"{facts.backend} {facts.version} in {facts.seconds:.1f} s: {facts.command or 'from Python'}"),
        ("from", f"{facts.onnx}, sha256 {facts.onnx_sha256}"),
        ("batch", ":".join(map(str, facts.batch))),
        *(("input", f"{one['name']}: {one['dtype']} {one['shape']}") for one in facts.inputs),
        *(("output", f"{one['name']}: {one['dtype']} {one['shape']}") for one in facts.outputs),
        ("layers", ", ".join(f"{count} in {precision}" for precision, count in counts.items())),
        *(("repaired", text) for text in facts.repairs),
    ]


def _layers(facts: EngineFacts) -> Table:
    return Table(
        title="What TensorRT made of the layers that multiply",
        columns=("layer", "operator", "precision"),
        rows=tuple((layer["name"], layer["op_type"], layer["precision"]) for layer in facts.layers),
    )
