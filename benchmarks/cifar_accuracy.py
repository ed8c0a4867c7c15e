"""Accuracy of trained CIFAR-10 networks in PyTorch, in FP32 and in INT8, with the ``rexport`` command itself.

    python -m rexport.benchmarks.cifar_accuracy --weights DIR --calibration DIR --test DIR [--json FILE]
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


def main(
    weights: Annotated[Path, typer.Option(help="A folder with cifar_resnet20.th and cifar_resnet44.th.")],
    calibration: Annotated[Path, typer.Option(help="Images to calibrate with.")],
    test: Annotated[Path, typer.Option(help="Labelled images to evaluate on.")],
    networks: Annotated[str, typer.Option(help="Names of networks.")] = "cifar_resnet20,cifar_resnet44",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
) -> None:
    """Export, quantize and evaluate each network."""
    if json_file is not None:
        check_writable(json_file)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks.split(","):
            state = str((weights / f"{network}.th").resolve())
            images = str(test.resolve())
            _rexport(folder, "onnx", network, "--weights", state, "-o", "fp32.onnx")
            _rexport(folder, "quantize", "fp32.onnx", "--data", str(calibration.resolve()), "-o", "int8.onnx")
            results = {
                "torch": _rexport(folder, "eval", network, "--weights", state, "--data", images),
                "fp32": _rexport(folder, "eval", "fp32.onnx", "--data", images),
                "int8": _rexport(folder, "eval", "int8.onnx", "--data", images, "--reference", "fp32.onnx"),
            }
            rows.append({"network": network, **results})
            for name, result in results.items():
                right = round(result["top1"] * result["images"])
                print(f"{network:16} {name:6} top-1 {100 * result['top1']:.2f} % ({right} of {result['images']})")
            int8 = results["int8"]
            print(f"{network:16} int8   agreement {int8['agreement']:.4f}, SQNR {int8['sqnr_db']:.1f} dB")
    if json_file is not None:
        document = {"schema": "rexport.cifar-accuracy/1", "rows": rows, "machine": machine_facts().to_json()}
        write_text(json_file, json.dumps(document, indent=1) + "\n")


def _rexport(folder: str, *arguments: str) -> Any:
    command = [sys.executable, "-P", "-m", "rexport", *arguments, "--json"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    typer.run(main)
