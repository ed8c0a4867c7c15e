"""``rexport fuse``: the graph passes on any ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json, Output

__all__ = ["fuse"]


def fuse(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    output: Output,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with the input model on random inputs.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Fuse MODEL: what can be computed before deployment is, and the rest takes fewer steps.

    Each pass says what it changed and what it refused, and why. The result is compared with the input model on
    random inputs; if they differ by more than rounding, no file is written and the exit code is 3.
    """
    from rexport._files import check_writable
    from rexport.cli._console import print_json, progress
    from rexport.cli._reports import passes_json, print_passes, size_of
    from rexport.model_file import load, save
    from rexport.passes import fuse as run_passes
    from rexport.passes import verify_equal

    check_writable(output)
    original = load(model)
    with progress(f"fusing {model.name}", None):
        result = run_passes(original)
        difference = verify_equal(original, result.model) if verify else None
        save(result.model, output)
    before, after = len(original.graph), len(result.model.graph)
    if as_json:
        print_json(
            {
                "schema": "rexport.fuse/1",
                "file": str(output),
                "nodes_before": before,
                "nodes": after,
                "difference": difference,
                "passes": passes_json(result.reports),
            }
        )
        return
    print(f"{output}: {size_of(output)}, {before} nodes became {after}")
    if difference is not None:
        print(f"equal to {model} on random inputs: the outputs differ by {difference:.1e} of their scale")
    print_passes(result.reports)
