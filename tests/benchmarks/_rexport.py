"""The comparison with the peers, and ``rexport`` in this process, where a benchmark starts it anew.

Starting it takes longer than what it does in tests.
"""

from __future__ import annotations

import importlib
import subprocess
from contextlib import chdir
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.studies._commands import REXPORT
from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

__all__ = ["peers_module", "run_here", "starts_nothing"]


def peers_module(name: str) -> Any:
    """Return a module of ``benchmarks/peers``, which is not installed."""
    return importlib.import_module(f"benchmarks.peers.{name}")


def run_here(command: Sequence[str], *, cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
    """Do what :func:`subprocess.run` does with a command of rexport."""
    program, arguments = command[: len(REXPORT)], command[len(REXPORT) :]
    assert tuple(program) == REXPORT
    with chdir(cwd):
        result = invoke(*arguments)
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)


def starts_nothing(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Have a module run its commands here."""
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run_here))
