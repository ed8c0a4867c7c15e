"""What regrouping by measurement gains: ResNeXt-50 in INT8, regrouped, against the same file as it was and FP32.

    python -m benchmarks.studies.regroup --data DIR_OF_PICTURES

For each batch size, ``rexport fuse INT8.onnx --regroup measure`` chooses on this machine, and its file, the one that
went in (with its stem in blocks, where that was measured to be faster) and the FP32 file are measured interleaved. The
weights are random: speed does not depend on them. Where a process's memory comes to lie makes its model faster or
slower by a few per cent for as long as it lives, so each is started several times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._results import JsonFile, speedup_of, write_results
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_TARGETS = {"int8": 1.7, "fp32": 2.5}


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network with grouped convolutions.")] = "resnext50_32x4d",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 32,
    launches: Annotated[int, typer.Option(min=1, help="How often each file's process is started.")] = 5,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 20.0,
    json_file: JsonFile = None,
) -> None:
    """Measure a regrouped INT8 file."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rexport("onnx", network, "-o", "fp32.onnx", cwd=folder)
        calibration = ("--data", str(data.resolve()), "--samples", str(samples))
        for images in batch.split(","):
            for_batch = ("--for-batch", images)
            quantized = rexport(
                "quantize", "fp32.onnx", *calibration, "--stem", "measure", *for_batch, "-o", "int8.onnx", cwd=folder
            )
            regroup = ("--regroup", "measure", *for_batch)
            regrouping = rexport("fuse", "int8.onnx", *regroup, "-o", "regrouped.onnx", cwd=folder)["regrouping"]
            options = ("--on", "cpu", "--batch", images, "--min-seconds", str(min_seconds), "--launches", str(launches))
            rows = rexport("bench", "int8.onnx", "regrouped.onnx", "fp32.onnx", *options, cwd=folder)["rows"]
            int8, regrouped, fp32 = rows
            gains = {"int8": speedup_of(int8, regrouped), "fp32": speedup_of(fp32, regrouped)}
            results.append(
                {
                    "batch": int(images),
                    "stem": quantized["stem"],
                    "regrouping": regrouping,
                    "speedup_over": {over: {"ratio": r, "interval": list(i)} for over, (r, i) in gains.items()},
                    "rows": rows,
                }
            )
            for over, (ratio, (low, high)) in gains.items():
                interval = f"{low:.2f} to {high:.2f}; {_TARGETS[over]} is asked for"
                print(f"{network} INT8 regrouped, batch {images}: {ratio:.2f} times {over.upper()} ({interval})")
    print(machine_facts())
    write_results(json_file, "regroup", network=network, targets=_TARGETS, batches=results)


if __name__ == "__main__":
    typer.run(main)
