"""What a file is: each kind of file that rexport writes or reads, described as data."""

from __future__ import annotations

from rexport.inspection.inspect import KINDS, inspect_file
from rexport.inspection.report import FileReport, Table

__all__ = ["KINDS", "FileReport", "Table", "inspect_file"]
