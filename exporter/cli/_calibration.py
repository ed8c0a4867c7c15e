"""The options of calibration and accuracy recovery, and ``--workers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rexport._errors import UsageError
from rexport.choices import Recovery
from rexport.cli._console import note
from rexport.cli._options import ACCURACY, ADVANCED, CALIBRATION, complete_calibrator

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
        help="Images to calibrate with: a folder (of images, or one per class), an .npy or an .npz file. Optional with "
        "--table.",
        show_default=False,
    ),
]
CalibratorChoice = Annotated[
    str,
    typer.Option(
        "--calibrator",
        metavar="minmax|average|percentile[:P]|entropy|mse",
        help="The range of a tensor: all values; the mean range of an image; P % of the values; the least information "
        "lost; or the least squared error.",
        rich_help_panel=CALIBRATION,
        autocompletion=complete_calibrator,
    ),
]
Tables = Annotated[
    list[Path] | None,
    typer.Option(
        "--table",
        help="Reuse a calibration table of this model instead of calibrating on --data; repeat it to merge several.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
SaveTable = Annotated[
    Path | None,
    typer.Option(
        "--save-table",
        help="Save the calibration table, for --table.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
WorkersChoice = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="local|N|ray[:ADDRESS][,N]",
        help="Run the images in this process, in N processes, or on a Ray cluster: a new one, or that at ADDRESS "
        "(ray:auto, ray://HOST:PORT), with up to N workers.",
        rich_help_panel=ADVANCED,
    ),
]
OldEngine = Annotated[Literal["local", "processes", "ray"] | None, typer.Option("--engine", hidden=True)]
OldAddress = Annotated[str | None, typer.Option("--address", hidden=True)]
RecoverChoice = Annotated[
    Recovery | None,
    typer.Option(
        "--recover",
        help="Accuracy recovery: none; channel equalization; or that and AdaRound, which needs --data.",
        show_default="adaround, equalize without --data",
        rich_help_panel=ACCURACY,
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
