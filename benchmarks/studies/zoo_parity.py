"""Every network that has a name, exported at its own size and proven equal: how close, how fast, how many nodes.

    python -m benchmarks.studies.zoo_parity

Each is exported by ``rexport onnx`` in a process of its own; if one can't be proven, the study stops there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._results import JsonFile, write_results
from rexport.models import networks

__all__ = ["main"]


def main(json_file: JsonFile = None) -> None:
    """Export the whole zoo."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks():
            start = perf_counter()
            exported = rexport("onnx", network.name, "-o", "model.onnx", cwd=Path(folder))
            parity = exported["parity"]
            rows.append({"network": network.name, "seconds": perf_counter() - start, "parity": parity})
            print(f"{network.name:24} {rows[-1]['seconds']:6.1f} s, outputs differ by {parity['difference']:.1e}")
    write_results(json_file, "zoo-parity", rows=rows)


if __name__ == "__main__":
    typer.run(main)
