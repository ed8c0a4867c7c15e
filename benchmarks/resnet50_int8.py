"""How much faster INT8 is than FP32, for ResNet-50 and ResNeXt-50 with the ``rexport`` command itself.

    python -m rexport.benchmarks.resnet50_int8 --data DIR_OF_PICTURES

Each network is exported, quantized with the pictures of DIR, and its two files are measured interleaved.
The weights are random: speed does not depend on them. The speed-up of 3 that INT8 is to reach holds for
processors with VNNI; without it one multiply-and-add takes three instructions instead of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from rexport._files import check_writable, write_text
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_TARGET = 3.0


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    networks: Annotated[str, typer.Option(help="Names of networks.")] = "resnet50,resnext50_32x4d",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 32,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 3.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all rows to this file.")] = None,
) -> None:
    """Measure INT8 against FP32 and say whether the target of 3 times is met."""
    if json_file is not None:
        check_writable(json_file)
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks.split(","):
            fp32, int8, result = (f"{network}_{suffix}" for suffix in ("fp32.onnx", "int8.onnx", "bench.json"))
            _rexport(folder, "onnx", network, "-o", fp32)
            _rexport(folder, "quantize", fp32, "--data", str(data.resolve()), "--samples", str(samples), "-o", int8)
            options = ("--on", "cpu", "--batch", batch, "--min-seconds", str(min_seconds))
            _rexport(folder, "bench", fp32, int8, *options, "-o", result)
            documents.append(json.loads((Path(folder) / result).read_text()))
    rows = [row for document in documents for row in document["rows"]]
    for row in rows:
        if "int8" in row["model"] and row["status"] == "ok":
            print(_verdict(row))
    machine = machine_facts()
    if machine.vnni:
        print(f"This processor has {machine.int8}: the target of {_TARGET:g} times applies.")
    else:
        print(f"This processor has no VNNI ({machine.int8}): the target of {_TARGET:g} times does not apply.")
    if json_file is not None:
        write_text(json_file, json.dumps({**documents[0], "rows": rows}, indent=1) + "\n")


def _rexport(folder: str, *arguments: str) -> None:
    """Run a command in ``folder``; its tables and notes go to the terminal."""
    done = subprocess.run([sys.executable, "-P", "-m", "rexport", *arguments], cwd=folder, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _verdict(row: dict[str, Any]) -> str:
    low, high = row["speedup_interval"]
    interval = f"95 % {low:.2f} to {high:.2f}"
    return f"{row['model']}, batch {row['batch']}: {row['speedup']:.2f} times FP32 ({interval})"


if __name__ == "__main__":
    typer.run(main)
