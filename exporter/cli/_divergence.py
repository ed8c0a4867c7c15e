"""The first layer that differs, as ``rexport eval --find-divergence`` looks for it and tells of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from rexport.evaluation.candidate import Compile
    from rexport.evaluation.divergence import DivergenceReport, TensorRow
    from rexport.preprocessing import Takes
    from rexport.runtimes.source import Source

__all__ = ["Divergences", "divergence_json", "print_divergence", "search"]

Divergences = Annotated[
    bool,
    typer.Option("--find-divergence", help="Find the first layer that differs from --reference, or from MODEL itself."),
]


def search(
    source: Source,
    runtime: str,
    reference: Source,
    images: tuple[np.ndarray, np.ndarray],
    *,
    takes: Takes,
    threads: int | None,
) -> DivergenceReport:
    """Look for the first layer of a file that differs on a runtime from the reference, computed node by node.

    Args:
        source: The file.
        runtime: What runs it.
        reference: The ONNX file that it is compared with; of an engine, the one that it was built from.
        images: Some, as the file takes them and as the reference does.
        takes: What the file takes.
        threads: By default the usable cores.

    Raises:
        UsageError: The two can't be compared.
    """
    from rexport._errors import UsageError
    from rexport.cli._console import progress
    from rexport.evaluation.candidate import Candidate
    from rexport.evaluation.divergence import find_divergence
    from rexport.evaluation.reference import Reference
    from rexport.model_file import load
    from rexport.preprocessing import Takes

    assert source.path is not None
    assert reference.path is not None
    if takes is Takes.PICTURES:
        raise UsageError(
            f"{source} resizes its pictures itself, so the sizes of its tensors are not known; use --find-divergence "
            "with a file from before --resize-in-graph."
        )
    expected = load(reference.path)
    model, compiled = _candidate(source.path, reference.path, expected)
    ours, theirs = images
    return find_divergence(
        Reference(expected, theirs, threads=threads),
        Candidate(model=model, runtime=runtime, images=ours, threads=threads, compile=compiled),
        progress=progress,
    )


def _candidate(path: Path, reference: Path, expected: ir.Model) -> tuple[ir.Model, Compile | None]:
    """Return the model that is asked for its tensors, and what compiles parts of it, in place of an engine."""
    from rexport._errors import UsageError
    from rexport._files import file_sha256
    from rexport.engine import BackendName, BuildOptions
    from rexport.engine_file import is_engine, read_facts
    from rexport.evaluation.candidate import engine_compiler
    from rexport.model_file import load

    if not is_engine(path):
        return load(path), None
    facts = read_facts(path)
    if file_sha256(reference) != facts.onnx_sha256:
        raise UsageError(
            f"{path} can't be asked for its tensors, so parts of it are built anew from {facts.onnx}, and {reference} "
            "is another file; pass the one that it was built from as --reference."
        )
    backend = BackendName(facts.backend)
    # an engine of TensorRT says what it was built on, which is not to be chosen
    capabilities = facts.capabilities if backend is BackendName.RTX else ()
    return expected, engine_compiler(BuildOptions(backend=backend, capabilities=capabilities))


def print_divergence(report: DivergenceReport, *, model: str, runtime: str, reference: str) -> None:
    """Print the tensors that were looked at, and what came of it."""
    from rexport.cli._console import print_table

    print()
    rows = [
        [
            row.tensor,
            f"{row.node} ({row.op_type})",
            f"{row.difference.sqnr_db:.1f} dB",
            _difference(row),
            "differs" if row.diverges else "",
        ]
        for row in report.rows
    ]
    print_table(["tensor", "computed by", "SQNR", "largest difference", ""], rows, left=(0, 1, 4))
    looked = f"{len(report.rows)} of {report.tensors} tensors were looked at"
    allowed = f"{report.arithmetic} explains an SQNR of {report.arithmetic.least_sqnr_db:g} dB and more of a layer"
    print(f"{looked}; {allowed}{', and a step of integers' if report.arithmetic == 'int8' else ''}.")
    if report.first is None:
        print(f"No layer of {model} on {runtime} differs from {reference} by more than that.")
    else:
        print(report.first)


def _difference(row: TensorRow) -> str:
    off = row.difference
    if off.other_steps:
        return "other steps"
    return f"{off.peak:.1e} of its scale" if off.steps is None else f"{off.steps:.1f} steps"


def divergence_json(report: DivergenceReport) -> dict[str, Any]:
    """Return what a search found, for a JSON document; a number that is not finite is ``null``."""
    first = report.first
    return {
        "arithmetic": str(report.arithmetic),
        "least_sqnr_db": report.arithmetic.least_sqnr_db,
        "tensors": report.tensors,
        "first": None
        if first is None
        else {**_row_json(first.row), "nodes": list(first.nodes), "inputs": list(first.inputs)},
        "rows": [_row_json(row) for row in report.rows],
    }


def _row_json(row: TensorRow) -> dict[str, Any]:
    off = row.difference
    return {
        "tensor": row.tensor,
        "node": row.node,
        "op_type": row.op_type,
        "layers": row.layers,
        "sqnr_db": off.sqnr_db if math.isfinite(off.sqnr_db) else None,
        "largest": off.largest if math.isfinite(off.largest) else None,
        "peak": off.peak if math.isfinite(off.peak) else None,
        "steps": off.steps,
        "other_steps": off.other_steps,
        "diverges": row.diverges,
    }
