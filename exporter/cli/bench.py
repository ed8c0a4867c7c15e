"""``rexport bench``: how fast models run here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Json, Threads

if TYPE_CHECKING:
    from rexport.benchmarks import BenchResult

__all__ = ["bench"]


def bench(
    models: Annotated[list[str], typer.Argument(help="ONNX files and names of networks; the first is the baseline.")],
    on: Annotated[
        str | None,
        typer.Option(help="Runtimes, such as cpu,torch.", show_default="cpu for files, torch for names"),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    threads: Threads = None,
    from_pixels: Annotated[
        bool, typer.Option("--from-pixels", help="Time from an image's pixels on: normalising them included.")
    ] = False,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 3.0,
    min_calls: Annotated[int, typer.Option(min=1, help="The fewest calls to time per row.")] = 10,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the JSON to this file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure throughput and latency of models on the runtimes of this machine.

    Each model runs in a process of its own and they take turns, so that a drift of the machine hits all
    alike. The speed-up is that over the first row of the same batch size, with its 95 % interval. The input
    is random; --on torch builds a file's network with fresh weights. p90 from fewer than 64 calls is an
    estimate.
    """
    import json

    from rexport import _files, benchmarks
    from rexport._errors import UnavailableError
    from rexport.cli import _console

    if output is not None:
        _files.check_writable(output)
    result = benchmarks.bench(
        models,
        runtimes=None if on is None else _split(on),
        batches=_batches(batch),
        threads=threads,
        from_pixels=from_pixels,
        min_seconds=min_seconds,
        min_calls=min_calls,
        progress=_console.progress,
    )
    if output is not None:
        _files.write_text(output, json.dumps(result.to_json(), indent=1) + "\n")
    if as_json:
        _console.print_json(result.to_json())
    elif result.measured:
        _print(result)
    if not result.measured:
        raise UnavailableError(f"Nothing could be measured. {result.rows[0].reason}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _batches(text: str) -> list[int]:
    from rexport._errors import UsageError

    try:
        return [int(part) for part in _split(text)]
    except ValueError:
        raise UsageError(f"--batch takes numbers such as 1,8, not {text!r}.") from None


def _print(result: BenchResult) -> None:
    from rexport.cli import _console

    columns = ("model", "runtime", "batch", "img/s", "p50 ms", "p90 ms", "speed-up", "95 %", "memory MiB")
    cells = []
    for row in result.measured:
        low, high = row.speedup_interval or (None, None)
        cells.append(
            (
                row.model,
                row.runtime,
                str(row.batch),
                _number(row.images_per_second, 1),
                _number(row.latency_ms["p50"], 2),
                _number(row.latency_ms["p90"], 2),
                _number(row.speedup, 2),
                f"{_number(low, 2)}–{_number(high, 2)}",
                _number(row.peak_memory_mib, 0),
            )
        )
    threads = result.rows[0].threads
    title = f"{result.machine}; {threads} thread" + "s" * (threads != 1)
    _console.print_table(columns, cells, title=title)
    for row in result.rows:
        if row.reason is not None:
            _console.note(f"{row.model} on {row.runtime}, batch {row.batch}: {row.reason}")
    if result.machine.is_busy:
        _console.note(
            f"the machine was busy in the minute before (load {result.machine.load_average}); if it still was, times "
            "are too long and intervals wide: measure again when it is idle."
        )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
