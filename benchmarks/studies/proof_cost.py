"""What the proof of ``rexport quantize`` takes of its time, with and without it in turns.

    python -m benchmarks.studies.proof_cost --data DIR_OF_PICTURES

The network's weights are random, but for the biases and statistics that trained ones have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.studies._commands import REXPORT, run
from benchmarks.studies._random_weights import write_random_weights
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]


def main(
    data: Annotated[Path, typer.Option(help="A folder of pictures.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network's name.")] = "resnet50",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate with.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is run.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Quantize with and without the proof, in turns, and print what it takes."""
    seconds: dict[str, list[float]] = {"--verify": [], "--no-verify": []}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_random_weights(network, folder / "w.safetensors")
        run([*REXPORT, "onnx", network, "--weights", "w.safetensors", "-o", "fp32.onnx"], cwd=folder)
        quantize = [*REXPORT, "quantize", "fp32.onnx", "--data", str(data.resolve()), "--samples", str(samples)]
        for _ in range(rounds):
            for option, took in seconds.items():
                took.append(run([*quantize, option, "-o", "int8.onnx"], cwd=folder).seconds)
    proven, unproven = (median(took) for took in seconds.values())
    share = (proven - unproven) / proven
    print(
        f"{network}, {samples} pictures: {proven:.1f} s with the proof, {unproven:.1f} s without: {100 * share:.1f} %"
    )
    write_results(json_file, "proof-cost", network=network, images=samples, seconds=seconds, share=share)


if __name__ == "__main__":
    typer.run(main)
