"""``rexport inspect``: describe a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json

__all__ = ["EXAMPLES", "inspect"]

EXAMPLES = (
    "rexport inspect resnet50-int8.onnx",
    "rexport inspect resnet50.table.json --json",
    "rexport inspect model.rxb --public-key fleet.pub",
)


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An ONNX file, an engine, a bundle, a calibration table or deployment settings.",
            show_default=False,
        ),
    ],
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify a bundle's signature with this key.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe FILE: inputs and outputs, precision and cost of each layer, and provenance."""
    from rexport.cli._console import print_facts, print_json, print_table
    from rexport.inspection import inspect_file

    report = inspect_file(file, public_key=public_key)
    if as_json:
        print_json({"schema": "rexport.inspect/1", "file": str(file), "kind": report.kind, **report.document})
        return
    print_facts(report.facts)
    for table in report.tables:
        print()
        print_table(table.columns, table.rows, title=table.title, left=table.left)
