"""Options for where the ranges of tensors come from, and for what is done against the loss of accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rexport._errors import UsageError
from rexport.choices import Recovery
from rexport.cli._console import note

if TYPE_CHECKING:
    from rexport.calibration.workers import Workers

__all__ = [
    "CalibratorChoice",
    "OldAddress",
    "OldEngine",
    "OptionalData",
    "RecoverChoice",
    "SaveTable",
    "Tables",
    "WorkersChoice",
    "parse_workers",
]

OptionalData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Images: DIR/<class>/<image>, a flat folder, or an .npy or .npz file; not needed with --table.",
        show_default=False,
    ),
]
CalibratorChoice = Annotated[
    str,
    typer.Option(
        "--calibrator",
        metavar="minmax|average|percentile[:P]|entropy|mse",
        help="How ranges follow from what the tensors hold: all of it, the mean over images, P % of the values, or "
        "what loses the least information or has the least squared error.",
    ),
]
Tables = Annotated[
    list[Path] | None,
    typer.Option(
        "--table",
        help="A calibration table of the same model, instead of running --data; several are added up.",
        show_default=False,
    ),
]
SaveTable = Annotated[
    Path | None, typer.Option("--save-table", help="Write the calibration table here, for --table.", show_default=False)
]
WorkersChoice = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="local|N|ray[:ADDRESS][,N]",
        help="What runs the images: this process, N processes, or a Ray cluster, started here or at an address such as "
        "ray:auto or ray://HOST:PORT, with up to N workers.",
    ),
]
OldEngine = Annotated[Literal["local", "processes", "ray"] | None, typer.Option("--engine", hidden=True)]
OldAddress = Annotated[str | None, typer.Option("--address", hidden=True)]
RecoverChoice = Annotated[
    Recovery | None,
    typer.Option(
        "--recover",
        help="Against the loss of accuracy: nothing; channels scaled to use their integers, and projections made one "
        "with what they are added to; and weights rounded for what their layers read on --data. By default the last, "
        "without --data the second.",
        show_default=False,
    ),
]


def parse_workers(workers: str, *, engine: str | None, address: str | None, threads: int | None) -> Workers:
    """Return what ``--workers`` names, or what ``--engine`` and ``--address`` meant, which were there before it.

    Raises:
        UsageError: It names none, or the three do not go together.
    """
    from rexport.calibration.workers import choose_workers

    if engine is None and address is None:
        return choose_workers(workers, threads=threads)
    cluster = "ray" if address is None else f"ray:{address.removeprefix('ray:')}"
    if engine == "ray":
        text = cluster if workers == "local" else f"{cluster},{workers}"
    elif address is None:
        text = "2" if (engine, workers) == ("processes", "local") else workers
    else:
        raise UsageError(f"--address is that of a Ray cluster; type --workers {cluster} instead.")
    note(f"--engine and --address are going away; type --workers {text} instead.")
    return choose_workers(text, threads=threads)
