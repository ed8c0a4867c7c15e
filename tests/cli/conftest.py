"""The quickstart's files, made once for all tests that use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli._run import rexport

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Quickstart:
    """A finished ``rexport quickstart --json``: where it ran, and what it printed."""

    folder: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'rexport[quickstart]'")
    folder = tmp_path_factory.mktemp("quickstart")
    done = rexport("quickstart", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Quickstart(folder=folder, document=json.loads(done.stdout))
