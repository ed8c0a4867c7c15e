"""How much faster INT8 is than FP32 on ONNX Runtime, for ResNet-50 and ResNeXt-50.

    python -m benchmarks.studies.int8_speed --data DIR_OF_PICTURES

Each network is exported, quantized with the pictures of DIR, and its two files are measured interleaved.
The weights are random: speed does not depend on them. The speed-up of 3 that ResNet-50 is to reach at batch 8
holds for processors with VNNI; without it one multiply-and-add takes three instructions instead of one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._random_weights import write_random_weights
from benchmarks.studies._results import JsonFile, write_results
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_TARGET = 3.0


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    networks: Annotated[str, typer.Option(help="Names of networks.")] = "resnet50,resnext50_32x4d",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 32,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Measure INT8 against FP32."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in networks.split(","):
            fp32, int8 = f"{network}.onnx", f"{network}.int8.onnx"
            weights = f"{network}.safetensors"
            write_random_weights(network, folder / weights)
            rexport("onnx", network, "--weights", weights, "-o", fp32, cwd=folder)
            rexport("quantize", fp32, "--data", str(data.resolve()), "--samples", str(samples), "-o", int8, cwd=folder)
            options = ("--on", "cpu", "--batch", batch, "--min-seconds", str(min_seconds))
            rows += rexport("bench", fp32, int8, *options, cwd=folder)["rows"]
    for row in rows:
        if ".int8." in row["model"]:
            print(_verdict(row))
    machine = machine_facts()
    applies = "applies" if machine.vnni else "does not apply"
    print(f"{machine.int8}: the target of {_TARGET:g} times for ResNet-50 at batch 8 {applies}.")
    write_results(json_file, "int8-speed", target=_TARGET, rows=rows)


def _verdict(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['model']}, batch {row['batch']}: {row['reason']}"
    low, high = row["speedup_interval"]
    return f"{row['model']}, batch {row['batch']}: {row['speedup']:.2f} times FP32 (95 % {low:.2f} to {high:.2f})"


if __name__ == "__main__":
    typer.run(main)
