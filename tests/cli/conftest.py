"""Files that tests of commands work on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.cli import _few_digits
from tests.cli._run import run
from tests.training._images import write_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests._products import Products


@dataclass(frozen=True)
class Quickstart:
    """A finished ``rexport quickstart --json``: where it ran, and what it printed."""

    folder: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def quickstart(products: Products) -> Quickstart:
    """A quickstart on a third of the digits."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'rexport[quickstart]'")

    def make(folder: Path) -> None:
        (folder / "quickstart.json").write_text(_few_digits.quickstart(folder))

    folder = products.folder("rexport quickstart", make=make)
    return Quickstart(folder=folder, document=json.loads((folder / "quickstart.json").read_text()))


@pytest.fixture(scope="session")
def export(products: Products) -> Callable[..., dict[str, Any]]:
    """Writes what ``rexport onnx NETWORK OPTIONS`` writes, at most once in a run; returns the document."""

    def write(path: str, options: str = "", *, network: str = "cifar_resnet8") -> dict[str, Any]:
        def make(folder: Path) -> None:
            (folder / "document.json").write_text(run(f"onnx {network} -o {folder}/m.onnx {options} --json"))

        folder = products.folder("rexport onnx", network, options, make=make)
        shutil.copy(folder / "m.onnx", path)
        document: dict[str, Any] = json.loads((folder / "document.json").read_text())
        return document

    return write


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
