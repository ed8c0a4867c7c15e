"""A report as one HTML file: it loads nothing from anywhere and runs no script, and its policy forbids both.

A report is a template that extends ``page.html``; the values that it shows are escaped. The only style is ``page.css``,
which the policy names by its SHA-256 (Content Security Policy Level 3, 2.3.1). Pictures are in the page, as ``data:``.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

__all__ = ["render", "require_extra", "time_in_words"]

_HERE = "rexport.pages"


def require_extra() -> None:
    """Raise :class:`UnavailableError` now, and not after minutes of work, if the extra ``report`` is not installed."""
    _environment()


def time_in_words(text: str) -> str:
    """Return a time in ISO 8601 as pages show it, ``2026-11-30 19:05 UTC``; any other text as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def render(
    template: str,
    *,
    title: str,
    heading: str,
    findings: Sequence[str],
    facts: Mapping[str, str],
    long_facts: Mapping[str, str],
    command: str | None,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """Return a page.

    Args:
        template: The report's template, as ``package/file``; its block ``main`` is the page below the header.
        title: The title of the window.
        heading: The heading.
        findings: The result, in sentences.
        facts: What was measured, and on what, in a few words each; empty ones are left out.
        long_facts: Those that take a line.
        command: The command line, if there was one.
        filters: Functions for the template.
        values: Everything else that the template shows.

    Raises:
        UnavailableError: Jinja, which fills the page, or Matplotlib, which draws, is not installed.
    """
    environment = _environment()
    environment.filters.update(filters or {})
    css = environment.get_template(f"{_HERE}/page.css").render()
    return environment.get_template(template).render(
        policy=_policy(css),
        css=css,
        title=title,
        heading=heading,
        findings=findings,
        facts={name: value for name, value in facts.items() if value},
        long_facts={name: value for name, value in long_facts.items() if value},
        command=command,
        **values,
    )


def _environment() -> Environment:
    try:
        import jinja2
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UnavailableError("HTML reports need Jinja and Matplotlib; `pip install 'rexport[report]'`.") from None
    return jinja2.Environment(loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined)


def _read(name: str) -> str:
    package, _, file = name.partition("/")
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
