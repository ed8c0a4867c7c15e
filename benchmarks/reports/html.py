"""A benchmark as one HTML file: it loads nothing from anywhere and runs no script, and its policy forbids both.

The only style is the page's own, which the policy names by its SHA-256 (Content Security Policy Level 3, 2.3.1).
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from statistics import median
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError
from rexport.benchmarks.document import read_document
from rexport.benchmarks.reports.table import cell, findings, notes, number, rows_table, threads_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from rexport.benchmarks.document import BenchResult
    from rexport.benchmarks.machine import Machine
    from rexport.benchmarks.reports.compare import Changes

__all__ = ["require_extra", "to_html"]


def to_html(document: Mapping[str, Any] | BenchResult, changes: Changes | None = None) -> str:
    """Return the report of a document of schema ``rexport.bench/1``, and of what changed since an earlier one.

    Raises:
        InputError: The document is of another schema or broken.
        UnavailableError: Jinja, which fills the page, or Matplotlib, which draws, is not installed.
    """
    read = read_document(document)
    environment = _environment()
    from rexport.benchmarks.reports import figures
    from rexport.benchmarks.reports.charts import swatch

    css = environment.get_template("page.css").render()
    names = figures.Legend(read)
    return environment.get_template("page.html").render(
        policy=_policy(css),
        css=css,
        document=read,
        facts=_facts(read),
        versions=_versions(read.machine),
        findings=findings(read),
        notes=notes(read),
        changes=changes,
        table=rows_table(read),
        names=names,
        legend=[(swatch(style), names.label(rows[0])) for style, rows in names.series(read.measured).items()],
        figures=[*figures.curves(read, names), *figures.pareto(read, names)],
        nearest=figures.nearest_peak(read, names),
        operators=figures.operators,
        number=number,
        cell=cell,
    )


def require_extra() -> None:
    """Raise :class:`UnavailableError` now, and not after minutes of work, if the extra ``report`` is not installed."""
    _environment()


def _environment() -> Environment:
    try:
        import jinja2
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UnavailableError("HTML reports need Jinja and Matplotlib; `pip install 'rexport[report]'`.") from None
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"median": median, "along": _along, "milliseconds": _milliseconds}
    return environment


def _template(name: str) -> str:
    return resources.files("rexport.benchmarks.reports").joinpath(name).read_text(encoding="utf-8")


def _along(seconds: float, middle: float) -> float:
    """Return where a time stands in its strip, from 0.8 to 1.4 medians, in per cent, to half a pixel or so."""
    return round(200 * min(1.0, max(0.0, (seconds / middle - 0.8) / (1.4 - 0.8)))) / 2


def _milliseconds(seconds: float | None) -> str:
    return cell(seconds and 1e3 * seconds)


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _versions(machine: Machine) -> str:
    versions = {**machine.packages, "Python": machine.python}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _facts(document: BenchResult) -> list[tuple[str, str]]:
    machine = document.machine
    facts = [
        ("Cores", str(machine.cores or "")),
        ("INT8", machine.int8),
        ("Threads", threads_line(document)),
        ("Memory", "" if machine.memory_gib is None else f"{machine.memory_gib:g} GiB"),
        ("System", " ".join(part for part in (machine.os, machine.architecture) if part)),
        ("Measured", document.time or ""),
        ("Load before", "" if machine.load_average is None else f"{machine.load_average:g}"),
        *((name.replace("_", " ").capitalize(), value) for name, value in machine.other.items()),
    ]
    return [(name, value) for name, value in facts if value]
