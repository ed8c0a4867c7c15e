"""What it saves to give a network the camera's bytes: ResNet-50 with raw-image input against the usual one.

    python -m benchmarks.studies.raw_image --data DIR_OF_PICTURES

The same network is exported with ``--raw-image`` and without, both are quantized, and all four files are measured
interleaved, from the bytes of the cut-out pictures to the logits: the usual files get them normalised by NumPy first.
What the files take by themselves, with their input ready, is measured too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._random_weights import write_random_weights
from benchmarks.studies._results import JsonFile, speedup_of, write_results
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network.")] = "resnet50",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 32,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Measure files that take raw images."""
    gains: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = ("fp32.onnx", "fp32-raw.onnx", "int8.onnx", "int8-raw.onnx")
        calibration = ("--data", str(data.resolve()), "--samples", str(samples))
        write_random_weights(network, folder / "weights.safetensors")
        for fp32, int8, *form in (files[::2], (*files[1::2], "--raw-image")):
            rexport("onnx", network, "--weights", "weights.safetensors", *form, "-o", fp32, cwd=folder)
            rexport("quantize", fp32, *calibration, "-o", int8, cwd=folder)
        for start in ((), ("--from-pixels",)):
            options = ("--on", "cpu", "--batch", batch, "--min-seconds", str(min_seconds), *start)
            measured = rexport("bench", *files, *options, cwd=folder)["rows"]
            rows += [{"from_pixels": bool(start), **row} for row in measured]
            for index in range(0, len(measured), 2):
                usual, raw = measured[index : index + 2]
                ratio, interval = speedup_of(usual, raw)
                gains.append(
                    {
                        "precision": usual["model"].removesuffix(".onnx"),
                        "batch": usual["batch"],
                        "from_pixels": bool(start),
                        "ratio": ratio,
                        "interval": list(interval),
                    }
                )
                print(_in_words(network, gains[-1]))
    print(machine_facts())
    write_results(json_file, "raw-image", network=network, speedups=gains, rows=rows)


def _in_words(network: str, gain: dict[str, Any]) -> str:
    start = "from pixels to logits" if gain["from_pixels"] else "with its input ready"
    low, high = gain["interval"]
    return (
        f"{network} {gain['precision'].upper()} with raw-image input, batch {gain['batch']}, {start}: "
        f"{gain['ratio']:.3f} times the usual ({low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    typer.run(main)
