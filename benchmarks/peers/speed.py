"""How fast the files run: ``rexport bench``, all files of a network on one runtime at one batch size, interleaved.

First every setting is measured for a moment, and of each tool the fastest whose file is not broken is chosen; then
those are measured again, for longer and in new processes. So the figures that are compared are not the ones that chose:
the highest of several noisy times would flatter the tool with the most settings.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.studies._commands import REXPORT, last_line

from .files import without_places
from .networks import FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .files import Made
    from .settings import Setting

__all__ = ["BASELINE", "Contest", "rexport_bench"]

BASELINE = "PyTorch's export"


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Files of one network on one runtime.

    Attributes:
        home: The network's folder.
        network: What it is called.
        runtime: A name in :data:`rexport.runtimes.RUNTIMES`.
        files: The settings with what became of them, in the order of the table.
        bench: Measures: folder, files, runtime, batch size, seconds a row → rows of ``rexport bench``.
    """

    home: Path
    network: str
    runtime: str
    files: Sequence[tuple[Setting, Made]]
    bench: Callable[[Path, Sequence[str], str, int, float], list[dict[str, Any]]]

    @property
    def entered(self) -> list[tuple[Setting, Made]]:
        """The files that are to be measured on this runtime."""
        return [
            (setting, result)
            for setting, result in self.files
            if result.file is not None and (setting.runtimes is None or self.runtime in setting.runtimes)
        ]

    def screen(self, batch: int, seconds: float) -> list[dict[str, Any]]:
        """Measure every file, ``seconds`` each."""
        return self._measure(self.entered, batch, seconds, stage="screening")

    def finals(self, screened: Sequence[dict[str, Any]], batch: int, seconds: float) -> list[dict[str, Any]]:
        """Measure the best of each tool and precision, ``seconds`` each; nothing if none could be measured before."""
        best: dict[tuple[str, str], dict[str, Any]] = {}
        for row in screened:
            if row["tool"] != BASELINE and row["status"] == "ok" and not row["broken"]:
                key = (row["tool"], row["precision"])
                if key not in best or row["images_per_second"] > best[key]["images_per_second"]:
                    best[key] = row
        if not best:
            return []
        finalists = {(row["tool"], row["setting"]) for row in best.values()}
        return self._measure(
            [(s, result) for s, result in self.entered if (s.tool, s.name) in finalists], batch, seconds, stage="final"
        )

    def _measure(
        self, entered: Sequence[tuple[Setting, Made]], batch: int, seconds: float, *, stage: str
    ) -> list[dict[str, Any]]:
        names = [FLOAT["plain"], *(str(result.file) for _, result in entered)]
        rows = self.bench(self.home, names, self.runtime, batch, seconds)
        where = {"network": self.network, "stage": stage}
        first = {"tool": BASELINE, "setting": "", "precision": "fp32", "broken": False}
        labels = [
            first,
            *(
                {"tool": s.tool, "setting": s.name, "precision": s.precision, "broken": result.is_broken}
                for s, result in entered
            ),
        ]
        return [
            {**where, **label, **row, "broken": label["broken"] or bool(row.get("wrong"))}
            for label, row in zip(labels, rows, strict=True)
        ]


def rexport_bench(home: Path, files: Sequence[str], runtime: str, batch: int, seconds: float) -> list[dict[str, Any]]:
    """Run ``rexport bench`` and return its rows; where it can't run at all, rows that say why."""
    options = ("--on", runtime, "--batch", str(batch), "--min-seconds", str(seconds), "--json")
    finished = subprocess.run([*REXPORT, "bench", *files, *options], cwd=home, capture_output=True, text=True)
    try:
        rows: list[dict[str, Any]] = json.loads(finished.stdout)["rows"]
    except ValueError:
        reason = without_places(last_line(finished), home)
        return [
            {
                "model": file,
                "runtime": runtime,
                "batch": batch,
                "status": "failed",
                "reason": reason,
                "images_per_second": None,
                "seconds": [],
                "calls_per_round": [],
            }
            for file in files
        ]
    return [{**row, "reason": row["reason"] and without_places(row["reason"], home)} for row in rows]
