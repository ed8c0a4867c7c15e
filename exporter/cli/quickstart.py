"""``rexport quickstart``: the whole way on real handwritten digits, in a minute or two."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.jobs.quickstart import QuickstartResult

__all__ = ["quickstart"]

_NAMES = {"torch": "PyTorch, eager", "fp32": "ONNX FP32, fused", "int8": "ONNX INT8"}


def quickstart(
    folder: Annotated[Path, typer.Option("--dir", help="Where the files go.")] = Path("rexport-quickstart"),
    as_json: Json = False,
) -> None:
    """Train a small ResNet on real handwritten digits, export, fuse, quantize, evaluate and measure it.

    The digits are scikit-learn's: nothing is downloaded. Everything is seeded, so every run on a machine gives the
    same network. If the INT8 file loses more than half a point of accuracy, the exit code is 4.
    """
    started = last = perf_counter()  # before PyTorch is imported, which takes seconds

    from rexport._progress import unsaid
    from rexport.cli._console import note, print_json, progress, say
    from rexport.jobs.quickstart import QuickstartRequest, run

    def say_step(message: str) -> None:
        nonlocal last
        now = perf_counter()
        say(f"{now - last:5.1f} s  {message}")
        last = now

    request = QuickstartRequest(folder=folder)
    result = run(request, progress=progress, note=note, say=unsaid if as_json else say_step)
    if as_json:
        print_json(result.to_json())
    else:
        say(f"{perf_counter() - started:5.1f} s  in all")
        _print(result)
    result.require()


def _print(result: QuickstartResult) -> None:
    from rexport.cli._console import print_table
    from rexport.cli._reports import percent

    print_table(
        ["model", "size KiB", "top-1", "same as FP32", "ms at batch 1", "img/s at batch 32", "speed-up"],
        [
            [
                _NAMES[row.model],
                f"{row.bytes / 1024:.0f}",
                percent(row.top1),
                percent(row.agreement),
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
    print(f"next: rexport eval {int8} --data {digits / 'test'} --reference {fp32}")
