"""Memory and time of ``rexport quantize`` as the number of pictures grows: the first is to stay the same.

    python -m rexport.benchmarks.calibration_memory --data DIR_OF_PICTURES [--network resnet50] [--json FILE]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rexport._files import check_writable, write_text
from rexport.benchmarks.commands import run
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network's name.")] = "resnet50",
    samples: Annotated[str, typer.Option(help="Numbers of pictures.")] = "16,64,256",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Quantize with more and more pictures, and print what each run took."""
    if json_file is not None:
        check_writable(json_file)
    rexport = [sys.executable, "-P", "-m", "rexport"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run([*rexport, "onnx", network, "-o", "fp32.onnx"], cwd=Path(folder))
        for count in samples.split(","):
            quantize = [*rexport, "quantize", "fp32.onnx", "--data", str(data.resolve()), "--samples", count]
            took = run([*quantize, "-o", "int8.onnx"], cwd=Path(folder))
            rows.append({"images": int(count), "seconds": took.seconds, "peak_memory_mib": took.peak_memory_mib})
            print(f"{network}, {count} pictures: {took.peak_memory_mib:.0f} MiB at most, {took.seconds:.1f} s")
    if json_file is not None:
        document = {"schema": "rexport.calibration-memory/1", "network": network, "rows": rows}
        write_text(json_file, json.dumps({**document, "machine": machine_facts().to_json()}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
