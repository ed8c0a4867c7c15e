"""Making the files: each tool in each setting, its time and memory, and what is left of the float model's answers.

A file that is there is not made again, unless asked for: beside it lies what is known of it, as JSON. It stands for its
command and its tool's requirements; when one of them changes, it is made anew. A tool is given copies of the files that
it reads, in a folder of its own: some of them write to what they were given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies._commands import REXPORT, last_line
from rexport._files import atomic_path, write_text
from rexport.benchmarks.machine import load_average

from .environments import environment_named
from .networks import CALIBRATION, FLOAT, TEST
from .process_tree import run_tree

if TYPE_CHECKING:
    from .settings import Setting

__all__ = ["BROKEN_BELOW_DB", "Made", "make", "without_places"]

# INT8 files of these networks keep 20 to 40 dB; a tenth of the signal as noise is another function
BROKEN_BELOW_DB = 10.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file, and what making it took.

    Attributes:
        tool, setting, precision: As in :class:`~.settings.Setting`.
        file: Its name in the network's folder; ``None`` if there is none, for which
        reason: says why, in a sentence.
        input: Which float file it was made from.
        seconds: Wall-clock time of the whole command.
        peak_memory_mib: Of the command's process tree.
        busy: How many processes wanted to run in the minute before the command; its time is good if there were none.
        bytes: The file's size.
        top1, fp32_top1: Fractions of the test images, where they have labels.
        agreement: The fraction of the test images whose top-1 is the float model's.
        sqnr_db: Of the logits, against the float model's, in dB.
    """

    tool: str
    setting: str
    precision: str
    file: str | None = None
    reason: str | None = None
    input: str | None = None
    seconds: float | None = None
    peak_memory_mib: float | None = None
    busy: float | None = None
    bytes: int | None = None
    top1: float | None = None
    fp32_top1: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None

    @property
    def is_broken(self) -> bool:
        """Whether it computes something else than the float model."""
        return self.sqnr_db is not None and self.sqnr_db < BROKEN_BELOW_DB

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "broken": self.is_broken}


def make(setting: Setting, home: Path, *, python: Path | None, again: bool, limit: float) -> Made:
    """Return a setting's file for a network, made now or before.

    Args:
        setting: The tool, and how it is called.
        home: The network's folder.
        python: The interpreter of the tool's environment; ``None`` for rexport.
        again: Whether to make it even if it is there.
        limit: Seconds that the tool may take.
    """
    record = home / f"{setting.file}.json"
    basis = _basis(setting)
    if record.exists() and not again:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        result = Made(**recorded["made"])
        if recorded["basis"] == basis and (result.file is None or (home / result.file).exists()):
            return result
    result = _make(setting, home, python, limit)
    write_text(record, json.dumps({"basis": basis, "made": asdict(result)}, indent=1) + "\n")
    return result


def without_places(text: str, *folders: Path) -> str:
    """Return a message without the folders of this machine."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "")
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", text)


def _basis(setting: Setting) -> list[str]:
    requirements = () if setting.environment is None else environment_named(setting.environment).requirements
    return [*setting.program[-1:], *setting.arguments, *requirements]


def _make(setting: Setting, home: Path, python: Path | None, limit: float) -> Made:
    result = Made(tool=setting.tool, setting=setting.name, precision=setting.precision)
    for kind in setting.inputs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shutil.copy(home / FLOAT[kind], folder / FLOAT[kind])
            shutil.copy(home / CALIBRATION, folder / CALIBRATION)
            command = setting.command(python, model=FLOAT[kind], images=CALIBRATION, output=setting.file)
            busy = load_average()
            outcome = run_tree(command, cwd=folder, environment=_variables(), limit=limit)
            reason = outcome.failure
            if reason is None and not (folder / setting.file).exists():
                reason = "It says that it succeeded, and wrote no file."
            if reason is not None:
                result = replace(
                    result, reason=result.reason or f"from the {kind} file: {without_places(reason, folder)}"
                )
                continue
            with atomic_path(home / setting.file) as path:
                shutil.copyfile(folder / setting.file, path)
        result = replace(
            result,
            file=setting.file,
            reason=None,
            input=kind,
            seconds=outcome.seconds,
            peak_memory_mib=outcome.peak_memory_mib,
            busy=busy,
            bytes=(home / setting.file).stat().st_size,
        )
        return _judged(result, home)
    return result


def _judged(result: Made, home: Path) -> Made:
    """Run it on the test images; a file that is not valid, or that ONNX Runtime can't load, is none."""
    assert result.file is not None
    command = [*REXPORT, "eval", result.file, "--data", TEST, "--reference", FLOAT["fused"], "--json"]
    finished = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if finished.returncode:
        reason = without_places(f"its file can't be used: {last_line(finished)}", home)
        return replace(result, file=None, reason=reason)
    evaluation = json.loads(finished.stdout)
    return replace(
        result,
        top1=evaluation["top1"],
        fp32_top1=evaluation["reference_top1"],
        agreement=evaluation["agreement"],
        sqnr_db=evaluation["sqnr_db"],
    )


def _variables() -> dict[str, str]:
    """Return the environment variables for a tool: nothing that leads it to this one's packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
