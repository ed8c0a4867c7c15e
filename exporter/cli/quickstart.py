"""``rexport quickstart``: the whole pipeline on handwritten digits, in a minute or two."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._words import percent
from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.jobs.quickstart import QuickstartResult

__all__ = ["EXAMPLES", "quickstart"]

EXAMPLES = (
    "rexport quickstart",
    "rexport quickstart --dir /tmp/digits --restart",
    "rexport quickstart --json",
)

_NAMES = {"torch": "PyTorch", "fp32": "ONNX FP32", "int8": "ONNX INT8"}


def quickstart(
    folder: Annotated[Path, typer.Option("--dir", help="Folder to write to.")] = Path("rexport-quickstart"),
    restart: Annotated[bool, typer.Option("--restart", help="Make the files of an earlier run again.")] = False,
    as_json: Json = False,
) -> None:
    """Train a small ResNet on handwritten digits, then export, fuse, quantize, evaluate and measure it.

    The digits come with scikit-learn: nothing is downloaded. All seeds are fixed, so every run on a machine gives the
    same network. An interrupted run resumes: run the same command again. If INT8 loses more than half a point of
    accuracy, the exit code is 4.
    """
    started = last = perf_counter()  # before PyTorch is imported, which takes seconds

    from rexport._progress import progress_bar, unsaid
    from rexport.cli._console import note, print_json, say
    from rexport.jobs.quickstart import QuickstartRequest, run

    def say_step(message: str) -> None:
        nonlocal last
        now = perf_counter()
        say(f"{now - last:5.1f} s  {message}")
        last = now

    request = QuickstartRequest(folder=folder, restart=restart)
    result = run(request, progress=progress_bar, note=note, say=unsaid if as_json else say_step)
    if as_json:
        print_json(result.to_json())
    else:
        say(f"{perf_counter() - started:5.1f} s  total")
        _print(result)
    result.require()


def _print(result: QuickstartResult) -> None:
    from rexport.cli._console import print_table

    print_table(
        ["model", "KiB", "top-1", "agrees", "ms, batch 1", "img/s, batch 32", "speed-up"],
        [
            [
                _NAMES[row.model],
                f"{row.bytes / 1024:.0f}",
                percent(row.top1),
                percent(row.agreement, 1),
                f"{row.latency_ms_batch1:.2f}",
                f"{row.images_per_second_batch32:.0f}",
                f"{row.speedup_batch32:.2f} ×",
            ]
            for row in result.rows
        ],
    )
    weights, fp32, int8 = (row.file for row in result.rows)
    digits = result.request.digits
    print(f"weights   {weights}")
    print(f"FP32      {fp32}")
    print(f"INT8      {int8}")
    print(f"pictures  {digits}/train and {digits}/test")
    print(f"report    {result.report}")
    print()
    print("With your model (names of networks: `rexport models`):")
    print("  rexport onnx NETWORK --weights YOUR.pt -o model.onnx")
    print("  rexport quantize model.onnx --data YOUR_PICTURES -o model-int8.onnx")
