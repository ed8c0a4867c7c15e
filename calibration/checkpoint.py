"""The finished part of an interrupted calibration, in a file, so that the next run continues from there.

It holds the merged table of the finished shards, since tables add up exactly; so it does not grow with their number.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rexport._errors import DataError, OutputError
from rexport._files import cache_folder, write_text
from rexport.calibration.dataset import BadImage
from rexport.calibration.table import CalibrationTable

__all__ = ["Checkpoint", "Finished"]

_SCHEMA = "rexport.calibration-checkpoint/1"
_SECONDS = 15.0  # of work that a power cut may lose; on Ctrl-C the file is written at once


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The numbers of the finished ``shards``, the ``table`` of their images, and those images that are ``bad``."""

    shards: frozenset[int] = frozenset()
    table: CalibrationTable | None = None
    bad: tuple[BadImage, ...] = ()

    def and_also(self, shard: int, table: CalibrationTable | None, bad: tuple[BadImage, ...]) -> Finished:
        """Return this with another finished shard."""
        if self.table is not None and table is not None:
            table = self.table.merge(table)
        return Finished(shards=self.shards | {shard}, table=table or self.table, bad=self.bad + bad)


class Checkpoint:
    """The file of the calibration that ``key`` stands for, in ``folder``; a context in which the rest is calibrated.

    At the end the file goes; after an error it holds all that is ``finished``.
    """

    def __init__(self, key: str, folder: Path | None = None) -> None:
        self._path = (folder or cache_folder() / "calibration") / f"{key}.json"
        self._written = time.monotonic()
        self.finished = self._read()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._write()
            return
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def add(self, shard: int, table: CalibrationTable | None, bad: tuple[BadImage, ...]) -> None:
        """Add another finished shard, and write the file if some seconds have passed."""
        self.finished = self.finished.and_also(shard, table, bad)
        if time.monotonic() - self._written > _SECONDS:
            self._write()

    def _read(self) -> Finished:
        """Return the part that was finished before: none, if there is no file or it can't be read."""
        with suppress(OSError, ValueError, TypeError, KeyError, DataError):
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if document["schema"] == _SCHEMA:
                return Finished(
                    shards=frozenset(map(int, document["shards"])),
                    table=document["table"] and CalibrationTable.from_json(document["table"]),
                    bad=tuple(BadImage(Path(path), reason) for path, reason in document["bad"]),
                )
        return Finished()

    def _write(self) -> None:
        """Write the file; failing to is no error."""
        finished = self.finished
        if not finished.shards:
            return
        document = {
            "schema": _SCHEMA,
            "shards": sorted(finished.shards),
            "table": finished.table and finished.table.to_json(),
            "bad": [[str(image.path), image.why] for image in finished.bad],
        }
        with suppress(OSError, OutputError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(document))
        self._written = time.monotonic()
