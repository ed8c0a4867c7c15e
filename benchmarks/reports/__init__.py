"""A benchmark's document as a report, and against an earlier one: what is pasted into a review."""

from __future__ import annotations

from rexport.benchmarks.document import load_document
from rexport.benchmarks.reports.compare import Change, Changes, RowKey, Verdict, compare, require_same_machine
from rexport.benchmarks.reports.html import to_html
from rexport.benchmarks.reports.markdown import changes_to_markdown, to_markdown
from rexport.pages import require_extra

__all__ = [
    "Change",
    "Changes",
    "RowKey",
    "Verdict",
    "changes_to_markdown",
    "compare",
    "load_document",
    "require_extra",
    "require_same_machine",
    "to_html",
    "to_markdown",
]
