"""What the proof and the fusion add to an export: ``rexport onnx`` against a bare ``torch.onnx.export``.

    python -m benchmarks.studies.export_time [--network resnet50] [--pairs 5]

Both build the same network and write one ONNX file with a dynamic batch; both are timed as whole processes, in
turns. ``rexport onnx`` is to take at most 1.5 times as long.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.studies._commands import REXPORT, in_turns
from benchmarks.studies._results import JsonFile, write_results

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
    json_file: JsonFile = None,
) -> None:
    """Time both and print the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        ours = [*REXPORT, "onnx", network, "-o", "ours.onnx"]
        bare = [sys.executable, "-P", "-c", _BARE, network, "bare.onnx"]
        result = in_turns(ours, bare, pairs=pairs, cwd=Path(folder))
    low, high = result["ratio_range"]
    print(
        f"rexport onnx {network}: {result['ratio']:.2f} times a bare torch.onnx.export "
        f"({low:.2f} to {high:.2f} over {pairs} pairs; at most {_TARGET} is asked for)"
    )
    write_results(json_file, "export-time", network=network, target=_TARGET, **result)


if __name__ == "__main__":
    typer.run(main)
