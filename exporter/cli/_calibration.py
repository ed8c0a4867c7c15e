"""Options for where the ranges of tensors come from, and for what is done against the loss of accuracy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._paths import READ, READ_IMAGES, WRITE
from rexport.jobs.choices import Recovery

__all__ = [
    "Address",
    "CalibratorChoice",
    "EngineChoice",
    "OptionalData",
    "RecoverChoice",
    "SaveTable",
    "Tables",
    "Where",
    "Workers",
]


class Where(StrEnum):
    """The engines (see :class:`rexport.calibration.engines.EngineName`, which would load too much here)."""

    LOCAL = "local"
    PROCESSES = "processes"
    RAY = "ray"


OptionalData = Annotated[
    Path | None,
    READ_IMAGES,
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
    READ,
    typer.Option(
        "--table",
        help="A calibration table of the same model, instead of running --data; several are added up.",
        show_default=False,
    ),
]
SaveTable = Annotated[
    Path | None,
    WRITE,
    typer.Option("--save-table", help="Write the calibration table here, for --table.", show_default=False),
]
EngineChoice = Annotated[
    Where, typer.Option("--engine", help="Where images run: in this process, in several, or on a Ray cluster.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="How many of the engine; by default 2 processes, or what the cluster has room for.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Of an existing Ray cluster, such as auto.", show_default=False)
]
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
