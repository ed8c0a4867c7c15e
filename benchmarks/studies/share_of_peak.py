"""How much of what this machine can multiply an INT8 network reaches, on ONNX Runtime and OpenVINO.

    python -m benchmarks.studies.share_of_peak --data DIR_OF_PICTURES

The file of each runtime's own target is measured, and after it the peak of that runtime: the fastest large INT8
convolution or matrix product that it runs here with the same threads. Both are repeated in turns, for the clock of a
machine that others share changes within minutes. The last profile of the layers says where the rest goes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._random_weights import write_random_weights
from benchmarks.studies._results import JsonFile, write_results
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_FILES = {"cpu": "x86", "openvino": "openvino"}


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network.")] = "resnet50",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="How often the network and the peak are measured.")] = 3,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row, each time.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Measure a network and the peak in turns."""
    rows: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_weights(network, folder / "weights.safetensors")
        rexport("onnx", network, "--weights", "weights.safetensors", "-o", "fp32.onnx", cwd=folder)
        calibration = ("--data", str(data.resolve()), "--samples", str(samples))
        for target in _FILES.values():
            rexport("quantize", "fp32.onnx", *calibration, "--target", target, "-o", f"{target}.onnx", cwd=folder)
        for number in range(rounds):
            for runtime, target in _FILES.items():
                options = ["--on", runtime, "--batch", batch, "--min-seconds", str(min_seconds), "--remeasure-peak"]
                if number == rounds - 1:
                    options.append("--layers")
                document = rexport("bench", f"{target}.onnx", *options, cwd=folder)
                rows += [_row(row, document["peaks"]) for row in document["rows"]]
                layers += document.get("layers", [])
    summary = _summary(rows)
    for line in summary:
        print(
            f"{network} INT8 on {line['runtime']}, batch {line['batch']}: {line['gmacs_per_second']:.0f} GMAC/s, "
            f"{line['share_of_convolutions']:.0%} of the best convolution's, {line['share_of_peak']:.0%} of the peak"
        )
    print(machine_facts())
    write_results(json_file, "share-of-peak", network=network, summary=summary, rows=rows, layers=layers)


def _row(row: dict[str, Any], peaks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was reached and the peaks beside it, in 10⁹ multiply-accumulates per second."""
    if row["status"] != "ok":
        raise SystemExit(f"{row['runtime']} can't be measured: {row['reason']}")
    best = {peak["kind"]: peak["gmacs_per_second"] for peak in peaks if peak["precision"] == "int8"}
    return {
        **{key: row[key] for key in ("runtime", "batch", "threads", "images_per_second", "gmacs_per_second", "flags")},
        "peaks": best,
        "share_of_convolutions": row["gmacs_per_second"] / best["convolution"],
        "share_of_peak": row["gmacs_per_second"] / max(best.values()),
    }


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the medians over the rounds, a line for each runtime and batch size."""
    figures = ("images_per_second", "gmacs_per_second", "share_of_convolutions", "share_of_peak")
    return [
        {
            "runtime": runtime,
            "batch": size,
            **{
                key: median(row[key] for row in rows if (row["runtime"], row["batch"]) == (runtime, size))
                for key in figures
            },
        }
        for runtime, size in dict.fromkeys((row["runtime"], row["batch"]) for row in rows)
    ]


if __name__ == "__main__":
    typer.run(main)
