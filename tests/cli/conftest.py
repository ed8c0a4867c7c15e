"""Files that tests of commands work on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli._run import rexport
from tests.training._images import write_images


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


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six pictures in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("images").mkdir()
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(f"images/{index}.png")
    return Path("images")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 40 pictures of two classes to train with, and others to test with."""
    write_images(tmp_path / "data" / "train", count=20)
    write_images(tmp_path / "data" / "test", count=5, seed=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path
