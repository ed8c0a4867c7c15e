"""Running the real command, as a user does, or in this process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from typer import main, testing

from rexport.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

__all__ = ["interrupted", "invoke", "rexport", "run", "run_json"]

testing._get_command = functools.cache(main.get_command)  # it takes 0.04 s, and the runner would do it every time


def rexport(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``rexport`` with ``arguments`` in a process of its own."""
    command = [sys.executable, "-m", "rexport", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def interrupted(process: subprocess.Popen[str], exit_code: int = 130) -> tuple[str, str]:
    """Wait for a command that was sent a signal, check that it ends cleanly, and return its stdout and stderr."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors, errors
    return output, errors


def run(command: str) -> str:
    """Run a command that must succeed in this process, and return what it prints."""
    result = invoke(*command.split())
    assert result.exit_code == 0, result.stderr
    return result.stdout


def run_json(command: str) -> dict[str, Any]:
    """Run a command that must succeed in this process, and return its document."""
    document: dict[str, Any] = json.loads(run(f"{command} --json"))
    return document


def invoke(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return testing.CliRunner().invoke(app, list(map(str, arguments)))
