"""Running the real command, as a user does."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["rexport"]


def rexport(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``rexport`` with ``arguments`` in a process of its own."""
    command = [sys.executable, "-m", "rexport", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)
