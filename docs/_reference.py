"""The pages of the reference that are made from the code, at each build of the site."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import typer
from mkdocs.structure.files import File, Files

from rexport.benchmarks.document import BenchResult
from rexport.cli import app
from rexport.deployment_settings import DeploymentSettings
from rexport.engine_file import EngineFacts

DOCUMENTS = {
    "bench": (BenchResult, "`rexport bench --json` and `-o FILE.json`"),
    "deployment-settings": (DeploymentSettings, "what `rexport tune` writes, as TOML"),
    "engine": (EngineFacts, "what lies beside an engine, `FILE.engine.json`"),
}
_ABOUT_DOCUMENTS = """# JSON documents

Every `--json` document has a `schema` key, such as `rexport.bench/1`. Keys may be added in a version, and are not
renamed. These are defined in full; the schemas are [JSON Schema](https://json-schema.org):
"""


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of docstrings, which are reStructuredText's."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    pages = {"reference/options.md": _options(), "reference/documents.md": _documents()}
    for name, (record, _) in DOCUMENTS.items():
        pages[f"reference/{name}.schema.json"] = json.dumps(msgspec.json.schema(record), indent=1)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _options() -> str:
    root: Any = typer.main.get_command(app)
    lines = ["# Options of all commands", "", "As `rexport COMMAND --help` prints them."]
    for name, command in sorted(root.commands.items()):
        for title, part in [(name, command), *((f"{name} {sub}", one) for sub, one in _commands_of(command))]:
            context = part.make_context(f"rexport {title}", [], resilient_parsing=True)
            lines += ["", f"## rexport {title}", "", "```text", part.get_help(context), "```"]
    return "\n".join(lines)


def _commands_of(command: Any) -> list[tuple[str, Any]]:
    return sorted(getattr(command, "commands", {}).items())


def _documents() -> str:
    lines = [_ABOUT_DOCUMENTS]
    lines += [f"- [`{name}`]({name}.schema.json): {what}" for name, (_, what) in DOCUMENTS.items()]
    return "\n".join(lines)
