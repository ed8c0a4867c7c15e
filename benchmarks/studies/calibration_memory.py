"""Memory and time of ``rexport quantize`` as the number of pictures grows: the first is to stay the same.

    python -m benchmarks.studies.calibration_memory --data DIR_OF_PICTURES

The network's weights are random: neither figure depends on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.studies._commands import REXPORT, run
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network's name.")] = "resnet50",
    samples: Annotated[str, typer.Option(help="Numbers of pictures.")] = "64,256,1000",
    json_file: JsonFile = None,
) -> None:
    """Quantize with more and more pictures, and print what each run took."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run([*REXPORT, "onnx", network, "-o", "fp32.onnx"], cwd=Path(folder))
        for count in samples.split(","):
            quantize = [*REXPORT, "quantize", "fp32.onnx", "--data", str(data.resolve()), "--samples", count]
            took = run([*quantize, "-o", "int8.onnx"], cwd=Path(folder))
            rows.append({"images": int(count), "seconds": took.seconds, "peak_memory_mib": took.peak_memory_mib})
            print(f"{network}, {count} pictures: {took.peak_memory_mib:.0f} MiB at most, {took.seconds:.1f} s")
    write_results(json_file, "calibration-memory", network=network, rows=rows)


if __name__ == "__main__":
    typer.run(main)
