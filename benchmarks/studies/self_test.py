"""The benchmark against itself: a file and its copy, again and again, must come out as equally fast.

    python -m benchmarks.studies.self_test MODEL.onnx

Each of the repetitions is a whole ``rexport bench`` of both names. Intervals of 95 % hold the true ratio, which is 1,
in 19 of 20; of 20 repetitions, 17 or more do so with a probability of 98 %, if the intervals are what they say.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import rexport
from benchmarks.studies._results import JsonFile, write_results
from rexport.benchmarks.machine import machine_facts

__all__ = ["main"]

_NETWORK = "cifar_resnet20"


def main(
    model: Annotated[
        Path | None,
        typer.Argument(help="An ONNX file; by default a new ResNet-20.", exists=True, dir_okay=False),
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often to bench.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
    on: Annotated[str, typer.Option(help="The runtime.")] = "cpu",
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row, each time.")] = 1.0,
    launches: Annotated[int, typer.Option(min=1, help="How often each process is started, each time.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Count how often the ratio's interval contains 1.0."""
    benches: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model is None:
            rexport("onnx", _NETWORK, "-o", "one.onnx", cwd=folder)
        else:
            shutil.copyfile(model, folder / "one.onnx")
        shutil.copyfile(folder / "one.onnx", folder / "two.onnx")
        spread = ("--min-seconds", str(min_seconds), "--launches", str(launches))
        for number in range(repetitions):
            benches.append(_bench(folder, "--on", on, "--batch", str(batch), *spread))
            print(f"{number + 1:3}: {_in_words(benches[-1])}", flush=True)
    held_by = sum(bench["holds"] for bench in benches)
    print(f"{held_by} of {repetitions} intervals contain 1")
    print(machine_facts())
    write_results(
        json_file,
        "self-test",
        model=model.name if model else _NETWORK,
        runtime=on,
        batch=batch,
        launches=launches,
        min_seconds=min_seconds,
        repetitions=repetitions,
        held=held_by,
        benches=benches,
    )


def _bench(folder: Path, *options: str) -> dict[str, Any]:
    first, second = rexport("bench", "one.onnx", "two.onnx", *options, cwd=folder)["rows"]
    if second["speedup"] is None:
        raise SystemExit(f"It can't be measured: {first['reason'] or second['reason']}")
    low, high = second["speedup_interval"]
    return {
        "ratio": second["speedup"],
        "interval": [low, high],
        "holds": low <= 1 <= high,
        "images_per_second": [row["images_per_second"] for row in (first, second)],
        "images_per_second_interval": [row["images_per_second_interval"] for row in (first, second)],
        "flags": [*first["flags"], *second["flags"]],
    }


def _in_words(bench: dict[str, Any]) -> str:
    low, high = bench["interval"]
    verb = {True: "contains", False: "does not contain"}[bench["holds"]]
    return f"{bench['ratio']:.3f} ({low:.3f} to {high:.3f}) {verb} 1"


if __name__ == "__main__":
    typer.run(main)
