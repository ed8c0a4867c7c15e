"""Recognising the kind of a file and describing it; a new kind is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._apart import require_exists
from rexport._errors import InputError, UsageError
from rexport._weights_file import require_not_weights
from rexport.inspection import bundle

if TYPE_CHECKING:
    from rexport.inspection.report import FileReport

__all__ = ["KINDS", "inspect_file"]

# Each module has ``recognises(path, head)``, given the first bytes of a file, and ``describe(path) -> FileReport``.
# The first that recognises a file describes it; an ONNX file begins with nothing of its own, so it comes last.
KINDS = {
    "deployment settings": "rexport.inspection.deployment_settings",
    "a calibration table": "rexport.inspection.calibration_table",
    "an engine": "rexport.inspection.engine_file",
    "an ONNX file that holds an engine": "rexport.inspection.context_file",
    "an ONNX file": "rexport.inspection.onnx_file",
}
_HEAD = 4096


def inspect_file(path: str | Path, *, public_key: str | Path | None = None) -> FileReport:
    """Describe a file, or the folder of a bundle.

    Args:
        path: The file.
        public_key: The key to verify a bundle's signature with; other kinds are not signed.

    Raises:
        InputError: It can't be read, is of no known kind, or is broken.
        VerificationError: It is a bundle that is not signed with the key, or whose files are not those signed.
        UsageError: There is a key and no bundle, or it is a file of weights.
    """
    path, public_key = Path(path), None if public_key is None else Path(public_key)
    for named in filter(None, (path, public_key)):
        require_exists(named)
    if bundle.is_bundle(path):
        return bundle.describe(path, public_key)
    if public_key is not None:
        raise UsageError(f"{path} is not a bundle, and only bundles are signed; leave out the public key.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, and not that of a bundle; name a file.")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from error
    for module in map(import_module, KINDS.values()):
        if module.recognises(path, head):
            report: FileReport = module.describe(path)
            return report
    require_not_weights(path)
    raise InputError(f"{path} is none of what can be inspected: {', '.join((*KINDS, 'a bundle'))}.")
