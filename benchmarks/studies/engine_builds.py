"""Building engines without a GPU: how long it takes, how large they are, and whether each time the same bytes come.

    python -m benchmarks.studies.engine_builds --data DIR_OF_PICTURES

Each network is exported, quantized for TensorRT with the pictures of DIR, and built for TensorRT for RTX some times,
each in a process of its own; files that are given with --models are built as they are. A build counts as done once it
is known that every layer which the file quantizes came out in integers. Seconds are of the build alone, and of the
whole command. The weights are random: neither depends on them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]


def main(
    data: Annotated[Path | None, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)] = None,
    networks: Annotated[str, typer.Option(help="Names of networks.")] = "resnet50,resnext50_32x4d",
    models: Annotated[str | None, typer.Option(help="ONNX files to build in place of networks.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is built.")] = 5,
    batch: Annotated[str, typer.Option(help="Batches that the engines take.")] = "1:8:32",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 8,
    json_file: JsonFile = None,
) -> None:
    """Build each some times."""
    if models is None and data is None:
        raise typer.BadParameter("name a folder of pictures with --data, or quantized files with --models")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if models is not None:
            files = [Path(model).resolve() for model in models.split(",")]
        else:
            files = [
                _quantized(network, str(Path(str(data)).resolve()), samples, folder) for network in networks.split(",")
            ]
        for file in files:
            rows.append(_build(file, rounds=rounds, batch=batch, folder=folder))
            print(_in_words(rows[-1]), flush=True)
    write_results(json_file, "engine-builds", batch=batch, rounds=rounds, rows=rows)


def _quantized(network: str, data: str, samples: int, folder: Path) -> Path:
    fp32, int8 = f"{network}.fp32.onnx", f"{network}.onnx"
    rexport("onnx", network, "-o", fp32, cwd=folder)
    calibration = ("--data", data, "--samples", str(samples), "--target", "tensorrt")
    rexport("quantize", fp32, *calibration, "-o", int8, cwd=folder)
    return folder / int8


def _build(model: Path, *, rounds: int, batch: str, folder: Path) -> dict[str, Any]:
    built: list[dict[str, Any]] = []
    commands: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        built.append(rexport("engine", str(model), "-o", "model.engine", "--batch", batch, cwd=folder))
        commands.append(time.perf_counter() - start)
    hashes = [build["sha256"] for build in built]
    last = built[-1]
    return {
        "model": model.name,
        "backend": last["backend"],
        "version": last["version"],
        "capabilities": last["capabilities"],
        "seconds": [build["seconds"] for build in built],
        "command_seconds": commands,
        "bytes": last["bytes"],
        "layers": len(last["layers"]),
        "int8_layers": sum(layer["precision"] == "int8" for layer in last["layers"]),
        "sha256": hashes,
        "most_often_the_same": max(map(hashes.count, hashes)),
    }


def _in_words(row: dict[str, Any]) -> str:
    rounds, command = len(row["seconds"]), statistics.median(row["command_seconds"])
    return (
        f"{row['model']}: {statistics.median(row['seconds']):.1f} s ({min(row['seconds']):.1f} to "
        f"{max(row['seconds']):.1f} over {rounds}; the whole command {command:.1f} s), "
        f"{row['bytes'] / 2**20:.1f} MiB, {row['int8_layers']} of {row['layers']} layers in int8, the same bytes "
        f"{row['most_often_the_same']} of {rounds} times"
    )


if __name__ == "__main__":
    typer.run(main)
