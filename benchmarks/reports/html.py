"""A benchmark as one HTML file: it loads nothing from anywhere and runs no script, and its policy forbids both.

The only style is the page's own, which the policy names by its SHA-256 (Content Security Policy Level 3, 2.3.1).
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError
from rexport.benchmarks.reports.document import read_document, short_names
from rexport.benchmarks.reports.figures import Legend, curves, layer_tables, legend, pareto, peak_bars, spread
from rexport.benchmarks.reports.palette import COLOURS, DARK, LIGHT, css_variables
from rexport.benchmarks.reports.scales import number
from rexport.benchmarks.reports.table import findings, notes, rows_table, threads_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from rexport.benchmarks.reports.compare import Changes
    from rexport.benchmarks.reports.document import Document, MachineFacts

__all__ = ["require_template_engine", "to_html"]


def to_html(document: Mapping[str, Any], changes: Changes | None = None) -> str:
    """Return the report of a document of schema ``rexport.bench/1``, and of what changed since an earlier one.

    Raises:
        InputError: The document is of another schema or broken.
        UnavailableError: Jinja, which fills the page, is not installed.
    """
    read = read_document(document)
    environment = _environment()
    css = environment.from_string(_data("page.css")).render(
        light=css_variables(LIGHT), dark=css_variables(DARK), colours=COLOURS
    )
    names = Legend(read)
    chart = pareto(read, names)
    return environment.from_string(_data("page.html")).render(
        policy=_policy(css),
        css=_markup(css),
        machine=read.machine,
        facts=_facts(read),
        versions=_versions(read.machine),
        command=read.command,
        created=read.created,
        findings=findings(read),
        notes=notes(read),
        changes=changes,
        table=rows_table(read),
        legend=legend(read, names),
        figures=[*curves(read, names), *([] if chart is None else [chart])],
        servers=[(names.label(row), row.server) for row in read.measured if row.server is not None],
        peaks=read.peaks,
        peak_bars=peak_bars(read, names),
        layers=layer_tables(read, short_names(dict.fromkeys(row.model for row in read.rows))),
        spread=spread(read, names),
        number=number,
        shown=lambda value: "–" if value is None else number(value),
    )


def require_template_engine() -> None:
    """Raise :class:`UnavailableError` now rather than after minutes of work if reports can't be written."""
    _environment()


def _environment() -> Environment:
    try:
        import jinja2
    except ImportError:
        raise UnavailableError("HTML reports need Jinja; `pip install 'rexport[report]'`.") from None
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)


def _data(name: str) -> str:
    return resources.files("rexport.benchmarks.reports").joinpath(name).read_text(encoding="utf-8")


def _markup(text: str) -> str:
    from markupsafe import Markup

    return Markup(text)  # the style is this package's own, and holds nothing of the document


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _versions(machine: MachineFacts) -> str:
    python = [] if machine.python is None else [f"Python {machine.python}"]
    return ", ".join([*(f"{name} {version}" for name, version in machine.packages.items()), *python])


def _facts(document: Document) -> list[tuple[str, str]]:
    machine = document.machine
    facts = [
        ("Cores", None if machine.cores is None else f"{machine.cores:g}"),
        ("INT8", machine.int8),
        ("Threads", threads_line(document) or None),
        ("Memory", None if machine.memory_gib is None else f"{machine.memory_gib:g} GiB"),
        ("System", " ".join(part for part in (machine.os, machine.architecture) if part) or None),
        ("Load before", None if machine.load_average is None else f"{machine.load_average:g}"),
        *((name.replace("_", " ").capitalize(), value) for name, value in machine.other.items()),
    ]
    return [(name, value) for name, value in facts if value]
