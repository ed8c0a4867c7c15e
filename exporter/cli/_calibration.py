"""Options for where the ranges of tensors come from, and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import DataError, UsageError
from rexport.cli._paths import READ, READ_IMAGES, WRITE

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import BadImage, CalibrationTable, Calibrator, Dataset
    from rexport.calibration.engines import Engine
    from rexport.preprocessing import Preprocessing

__all__ = [
    "Address",
    "Calibrated",
    "Calibration",
    "CalibratorChoice",
    "EngineChoice",
    "OptionalData",
    "SaveTable",
    "Tables",
    "Where",
    "Workers",
    "calibration_json",
    "print_calibration",
]

_FEW = 32  # images


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


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The table, the calibrator to read it with, and the images that were left out."""

    table: CalibrationTable
    calibrator: Calibrator
    skipped: tuple[BadImage, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was asked for: the ``tables`` of earlier runs, added up, or without them the images in ``data``."""

    calibrator: Calibrator
    data: Path | None
    tables: tuple[Path, ...]
    save_table: Path | None
    samples: int
    batch: int
    skip_bad: bool
    threads: int | None
    engine: Engine

    @classmethod
    def parse(
        cls,
        calibrator: str,
        *,
        data: Path | None,
        tables: list[Path] | None,
        save_table: Path | None,
        samples: int,
        batch: int,
        skip_bad: bool,
        where: Where,
        workers: int | None,
        threads: int | None,
        address: str | None,
    ) -> Calibration:
        """Read the options.

        Raises:
            UsageError: They make no sense together.
            OutputError: The table can't be written to its place.
        """
        from rexport._files import check_writable
        from rexport.calibration import Calibrator
        from rexport.calibration.engines import EngineName, choose_engine

        if data is None and not tables:
            raise UsageError("There is nothing to calibrate with: pass --data IMAGES, or --table of an earlier run.")
        if save_table is not None:
            check_writable(save_table)
        return cls(
            calibrator=Calibrator.parse(calibrator),
            data=data.absolute() if data is not None and where is Where.RAY else data,
            tables=tuple(tables or ()),
            save_table=save_table,
            samples=samples,
            batch=batch,
            skip_bad=skip_bad,
            threads=threads,
            engine=choose_engine(EngineName(where), workers=workers, threads=threads, address=address),
        )

    def open(self, preprocessing: Preprocessing | None) -> Dataset | None:
        """Open the images, if there are any, beside tables too.

        Raises:
            DataError: They can't be read.
        """
        from rexport.calibration import open_dataset

        return None if self.data is None or preprocessing is None else open_dataset(self.data, preprocessing)

    def run(self, model: ir.Model, images: Dataset | None) -> Calibrated:
        """Return the table of ``model``, from files, or by running ``images`` (see :meth:`open`).

        Raises:
            UsageError: A table is of another model.
            DataError: A table or images can't be read, or a tensor takes values that are not finite.
        """
        from rexport._files import write_text
        from rexport.calibration import calibrate_dataset
        from rexport.cli._console import note, progress

        tables = [_read(path, model) for path in self.tables]
        skipped: tuple[BadImage, ...] = ()
        if images is not None and not tables:
            seen = calibrate_dataset(
                model,
                images,
                batch=self.batch,
                samples=self.samples,
                skip_bad=self.skip_bad,
                engine=self.engine,
                progress=progress,
            )
            if seen.resumed:
                note(f"{seen.resumed} of the images had been run before an interruption.")
            tables.append(seen.table)
            skipped = seen.skipped
        table = reduce(lambda one, other: one.merge(other), tables)
        if table.images < _FEW:
            note(f"only {table.images} images to calibrate with; a few hundred give steadier ranges.")
        if self.save_table is not None:
            write_text(self.save_table, table.to_json())
        return Calibrated(table=table, calibrator=self.calibrator, skipped=skipped)


def _read(path: Path, model: ir.Model) -> CalibrationTable:
    from rexport.calibration import CalibrationTable
    from rexport.model_file import model_hash

    try:
        table = CalibrationTable.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"{path} can't be read: {why}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if table.model_sha256 != model_hash(model):
        raise UsageError(
            f"{path} is the calibration table of another model (or another version of rexport fused it); pass the "
            "model that it was made with, or --data to calibrate this one."
        )
    return table


def print_calibration(done: Calibrated, asked: Calibration) -> None:
    """Print what the ranges rest on."""
    print(f"calibrated on {done.table.images} images, {done.calibrator}")
    if asked.save_table is not None:
        print(f"{asked.save_table}: the calibration table, for --table")


def calibration_json(done: Calibrated) -> dict[str, Any]:
    """Return the same as JSON objects."""
    return {
        "images": done.table.images,
        "calibrator": str(done.calibrator),
        "data_sha256": done.table.data_sha256,
    }
