"""What the proof and the fusion add to an export: ``rexport onnx`` against a bare ``torch.onnx.export``.

    python -m rexport.benchmarks.export_time [--network resnet50] [--pairs 5] [--json FILE]

Both build the same network and write one ONNX file with a dynamic batch; both are timed as whole processes, in
turns. ``rexport onnx`` is to take at most 1.5 times as long.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rexport._files import check_writable, write_text
from rexport.benchmarks.commands import in_turns
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_TARGET = 1.5
_BARE = """
import sys, torch
from rexport.models import build, find
size = find(sys.argv[1]).input_size
torch.onnx.export(
    build(sys.argv[1]), (torch.zeros(2, 3, size, size),), sys.argv[2],
    dynamo=True, dynamic_shapes=({0: "batch"},), external_data=False, verbose=False,
)
"""


def main(
    network: Annotated[str, typer.Option(help="A network's name.")] = "resnet50",
    pairs: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the times to this file.")] = None,
) -> None:
    """Time both and print the ratio."""
    if json_file is not None:
        check_writable(json_file)
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-P", "-m", "rexport", "onnx", network, "-o", "ours.onnx"]
        bare = [sys.executable, "-P", "-c", _BARE, network, "bare.onnx"]
        result = in_turns(ours, bare, pairs=pairs, cwd=Path(folder))
    low, high = result["ratio_range"]
    print(
        f"rexport onnx {network}: {result['ratio']:.2f} times a bare torch.onnx.export "
        f"({low:.2f} to {high:.2f} over {pairs} pairs; at most {_TARGET} is asked for)"
    )
    if json_file is not None:
        document = {"schema": "rexport.export-time/1", "network": network, "target": _TARGET, **result}
        write_text(json_file, json.dumps({**document, "machine": machine_facts().to_json()}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
