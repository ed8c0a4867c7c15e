"""``--report``, ``--markdown``, ``--compare`` and ``--max-regression``: reports, and an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport._errors import UsageError
from rexport.cli._paths import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.benchmarks.reports import Changes

__all__ = ["Compare", "Markdown", "MaxRegression", "Report", "Reports", "changes_json", "command_line", "print_changes"]

Report = Annotated[
    Path | None,
    WRITE,
    typer.Option("--report", metavar="FILE.html", help="Write a report with charts, one file.", show_default=False),
]
Markdown = Annotated[
    str | None,
    WRITE,
    typer.Option(
        "--markdown", metavar="FILE|-", help="Write the table in Markdown; - prints it instead.", show_default=False
    ),
]
Compare = Annotated[
    Path | None,
    READ,
    typer.Option(
        "--compare", metavar="OLD.json", help="Say what changed since this earlier run (-o).", show_default=False
    ),
]
MaxRegression = Annotated[
    float | None,
    typer.Option(
        "--max-regression",
        metavar="PERCENT",
        help="Fail (exit 4) if a row is surely slower than in --compare by more than this.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What was asked for beside the table; ``markdown_to_stdout`` is ``--markdown -``."""

    html: Path | None
    markdown: Path | None
    markdown_to_stdout: bool
    old: Mapping[str, Any] | None
    max_regression: float | None

    @classmethod
    def parse(
        cls,
        report: Path | None,
        markdown: str | None,
        compare: Path | None,
        max_regression: float | None,
        *,
        as_json: bool,
    ) -> Reports:
        """Check what was asked for, before anything is measured.

        Raises:
            UsageError: The options do not go together, or a number makes no sense.
            InputError: The old run can't be read, or is another machine's and has a bound to hold.
            OutputError: A file can't be written.
            UnavailableError: What writes HTML is not installed.
        """
        from rexport import _files
        from rexport.benchmarks import machine_facts, reports

        if max_regression is not None and compare is None:
            raise UsageError("--max-regression needs an earlier run to hold to; pass --compare OLD.json too.")
        if max_regression is not None and not 0 <= max_regression < 100:
            raise UsageError(
                f"--max-regression {max_regression:g}: it is per cent, from 0 to less than 100, such as 5."
            )
        if as_json and markdown == "-":
            raise UsageError("--json and --markdown - both print to stdout; name a file for one of them.")
        target = None if markdown in (None, "-") else Path(markdown)
        for path in (report, target):
            if path is not None:
                _files.check_writable(path)
        if report is not None:
            reports.require_template_engine()
        old = None if compare is None else reports.load_document(compare)
        if old is not None and max_regression is not None:
            reports.require_same_machine(old, machine_facts().to_json())
        return cls(
            html=report,
            markdown=target,
            markdown_to_stdout=markdown == "-",
            old=old,
            max_regression=max_regression,
        )

    def changes(self, document: Mapping[str, Any]) -> Changes | None:
        """Compare with the old run, if there is one; let the result ``require()`` once everything is written."""
        from rexport.benchmarks.reports import compare

        return None if self.old is None else compare(self.old, document, self.max_regression)

    def write(self, document: Mapping[str, Any], changes: Changes | None) -> None:
        """Write the files that were asked for, and print Markdown if that was.

        Raises:
            OutputError: A file can't be written.
        """
        from rexport import _files
        from rexport.benchmarks.reports import changes_to_markdown, to_html, to_markdown

        if self.html is not None:
            _files.write_text(self.html, to_html(document, changes))
        if self.markdown is not None or self.markdown_to_stdout:
            text = to_markdown(document)
            if changes is not None:
                text += f"\n{changes_to_markdown(changes)}"
            if self.markdown is not None:
                _files.write_text(self.markdown, text)
            else:
                print(text, end="")


def print_changes(changes: Changes | None) -> None:
    """Print what changed since the old run, if there is one."""
    if changes is None:
        return
    from rexport.cli._console import print_table

    columns = ("model", "runtime", "batch", "threads", "was /s", "is /s", "ratio", "95 %", "verdict")
    cells = []
    for row in changes.rows:
        interval = "–" if row.interval is None else f"{row.interval[0]:.2f}–{row.interval[1]:.2f}"
        past = ", past the bound" if row in changes.regressions else ""
        cells.append(
            (
                row.key.model,
                row.key.runtime,
                str(row.key.batch),
                str(row.key.threads),
                f"{row.old_per_second:,.1f}",
                f"{row.new_per_second:,.1f}",
                f"{row.ratio:.2f}",
                interval,
                f"{row.verdict}{past}",
            )
        )
    if cells:
        print_table(columns, cells, title="against the earlier run", left=(0, 1, 8))
    for sentence in changes.sentences:
        print(sentence)


def changes_json(changes: Changes | None) -> dict[str, Any]:
    """Return the changes for a JSON document: the key ``changes``."""
    return {"changes": None if changes is None else changes.to_json()}


def command_line() -> str:
    """Return the command that runs, as it would be typed: for the document's key ``command``."""
    import shlex
    import sys

    return shlex.join(["rexport", *sys.argv[1:]])
