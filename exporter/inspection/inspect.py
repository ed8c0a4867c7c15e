"""Which kind of file it is, and who describes it; a new kind is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rexport._errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.inspection.report import FileReport

__all__ = ["KINDS", "inspect_file"]

# Each module has ``recognises(path, head)``, given the first bytes of a file, and ``describe(path) -> FileReport``.
# The first that recognises a file describes it; an ONNX file begins with nothing of its own, so it comes last.
KINDS = {
    "a profile": "rexport.inspection.deployment_profile",
    "a calibration table": "rexport.inspection.calibration_table",
    "an engine": "rexport.inspection.engine_file",
    "an ONNX file": "rexport.inspection.onnx_file",
}
_HEAD = 4096


def inspect_file(path: Path) -> FileReport:
    """Describe a file.

    Raises:
        InputError: It can't be read, is of no known kind, or is broken.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file.")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from error
    for module in map(import_module, KINDS.values()):
        if module.recognises(path, head):
            report: FileReport = module.describe(path)
            return report
    raise InputError(f"{path} is none of what can be inspected: {', '.join(KINDS)}.")
