#!/usr/bin/env python3
"""A Mender update module (protocol v3) that hands rexport's bundles to its agent.

Mender calls it with a state and the folder of the update, which is then the working directory too. Nothing is installed
before ``ArtifactInstall``, since Mender has not verified the payload until then; the agent verifies the bundle's own
signature besides. What was active before is kept in the update's ``tmp``, so that a rollback after a restart, or one
that is asked for twice, goes back exactly once. Written for Python 3.8, with its standard library alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = "/var/lib/rexport"
PYTHON = "python3"

AGENT = "rexport-agent.pyz"
_NOTES = "rexport.json"


class ModuleError(Exception):
    """The update can't go on; the message is for Mender's log."""


def ask_agent(*words: str) -> dict[str, Any]:
    """Run a verb of the agent, and return its document."""
    command = [PYTHON, str(Path(ROOT, AGENT)), *words, "--root", ROOT, "--json"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise ModuleError(f"{PYTHON} can't be run: {error.strerror}") from error
    try:
        document = json.loads(finished.stdout)
    except ValueError:
        document = {}
    if finished.returncode != 0 or not isinstance(document, dict):
        reason = document.get("error") if isinstance(document, dict) else None
        raise ModuleError(str(reason or finished.stderr.strip() or f"the agent ended with {finished.returncode}"))
    return document


def active() -> str | None:
    """Return the ID of the version that is active."""
    version = ask_agent("status").get("active")
    return version and str(version["id"])


def artifact_install(folder: Path) -> None:
    """Install the bundle of the payload; if that fails, the agent has rolled back automatically."""
    bundles = sorted((folder / "files").glob("*.rxb"))
    if len(bundles) != 1:
        raise ModuleError(f"the artifact has {len(bundles)} bundles (.rxb) instead of one")
    before = active()
    keep(folder, {"before": before, "after": None})
    ask_agent("install", str(bundles[0]))
    keep(folder, {"before": before, "after": active()})


def artifact_commit(folder: Path) -> None:
    """Make sure that what was installed is what is active."""
    after, now = notes(folder).get("after"), active()
    if after is None or now != after:
        raise ModuleError(f"{after} was installed, and {now} is active")


def artifact_rollback(folder: Path) -> None:
    """Go back to what was active before, unless that has been done, or was never left."""
    kept_notes = notes(folder)
    if "before" not in kept_notes or active() == kept_notes["before"]:
        return
    ask_agent("rollback")
    now = active()
    if now != kept_notes["before"]:
        raise ModuleError(f"{kept_notes['before']} was to be active again, and {now} is")


def cleanup(folder: Path) -> None:  # noqa: ARG001
    """Remove what half-done installations and versions before the previous one have left."""
    if Path(ROOT, AGENT).exists():
        ask_agent("gc")


def notes(folder: Path) -> dict[str, Any]:
    """Return what was kept."""
    path = folder / "tmp" / _NOTES
    kept_notes: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return kept_notes


def keep(folder: Path, facts: dict[str, Any]) -> None:
    """Keep what later states need, whole or not at all."""
    path = folder / "tmp" / _NOTES
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(facts))
    temporary.replace(path)


ANSWERS = {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes"}
STATES = {
    "ArtifactInstall": artifact_install,
    "ArtifactVerifyReboot": artifact_commit,
    "ArtifactCommit": artifact_commit,
    "ArtifactRollback": artifact_rollback,
    "Cleanup": cleanup,
}


def main() -> int:
    """Answer a question, or run a state; others mean nothing, and are no error."""
    arguments = dict(enumerate(sys.argv))
    state = arguments.get(1, "")
    if state in ANSWERS:
        print(ANSWERS[state])
    elif state in STATES:
        try:
            STATES[state](Path(arguments.get(2, ".")).absolute())
        except (ModuleError, OSError, ValueError) as error:
            print(f"rexport: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
