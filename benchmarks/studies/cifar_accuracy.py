"""Accuracy of trained CIFAR-10 networks in PyTorch, in FP32 and in INT8.

    python -m benchmarks.studies.cifar_accuracy --calibration DIR --test DIR NETWORK=WEIGHTS ...

such as ``cifar_resnet20=cifar_resnet20.th``; the test images lie in a folder per class.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]


def main(
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK=WEIGHTS...")],
    calibration: Annotated[Path, typer.Option(help="Images to calibrate with.")],
    test: Annotated[Path, typer.Option(help="Labelled images to evaluate on.")],
    json_file: JsonFile = None,
) -> None:
    """Export, quantize and evaluate each network."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in networks:
            network, _, weights = pair.partition("=")
            rows.append({"network": network, **_measure(network, Path(weights), calibration, test, Path(folder))})
            _print(rows[-1])
    write_results(json_file, "cifar-accuracy", rows=rows)


def _measure(network: str, weights: Path, calibration: Path, test: Path, folder: Path) -> dict[str, Any]:
    state, pictures, images = (str(path.resolve()) for path in (weights, calibration, test))
    rexport("onnx", network, "--weights", state, "-o", "fp32.onnx", cwd=folder)
    rexport("quantize", "fp32.onnx", "--data", pictures, "-o", "int8.onnx", cwd=folder)
    return {
        "torch": rexport("eval", network, "--weights", state, "--data", images, cwd=folder),
        "fp32": rexport("eval", "fp32.onnx", "--data", images, cwd=folder),
        "int8": rexport("eval", "int8.onnx", "--data", images, "--reference", "fp32.onnx", cwd=folder),
    }


def _print(row: dict[str, Any]) -> None:
    for name in ("torch", "fp32", "int8"):
        result = row[name]
        right = round(result["top1"] * result["images"])
        print(f"{row['network']:16} {name:6} top-1 {100 * result['top1']:.2f} % ({right} of {result['images']})")
    int8 = row["int8"]
    print(f"{row['network']:16} int8   agreement {int8['agreement']:.4f}, SQNR {int8['sqnr_db']:.1f} dB")


if __name__ == "__main__":
    typer.run(main)
