"""The quickstart does what it says, and the same every time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli import _few_digits
from tests.cli._run import rexport

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Quickstart


@pytest.mark.deep
def test_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'rexport[quickstart]'")
    done = rexport("quickstart", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["fp32"]["top1"] == rows["torch"]["top1"] >= 0.97
    assert abs(rows["int8"]["top1"] - rows["fp32"]["top1"]) <= 0.005


@pytest.mark.slow
def test_rows_and_files(quickstart: Quickstart) -> None:
    rows = {row["model"]: row for row in quickstart.document["rows"]}
    assert list(rows) == ["torch", "fp32", "int8"]
    assert rows["fp32"]["top1"] == rows["torch"]["top1"] >= 0.8  # measured: 0.94
    assert abs(rows["int8"]["top1"] - rows["fp32"]["top1"]) * _few_digits.HELD_OUT <= 2
    assert rows["int8"]["agreement"] >= 0.95
    for row in rows.values():
        assert (quickstart.folder / row["file"]).stat().st_size == row["bytes"]
        assert row["images_per_second_batch32"] > 0
    assert rows["int8"]["bytes"] < rows["fp32"]["bytes"] / 2


@pytest.mark.deep
def test_the_same_result_on_every_run(quickstart: Quickstart, tmp_path: Path) -> None:
    rows = json.loads(_few_digits.quickstart(tmp_path))["rows"]
    accuracies = ("file", "bytes", "top1", "agreement")
    assert [[row[name] for name in accuracies] for row in rows] == [
        [row[name] for name in accuracies] for row in quickstart.document["rows"]
    ]
    for row in rows:
        assert (tmp_path / row["file"]).read_bytes() == (quickstart.folder / row["file"]).read_bytes()


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = rexport("quickstart", "--dir", tmp_path / "file", cwd=tmp_path)
    assert done.returncode == 1
    assert "--dir" in done.stderr
    assert "Traceback" not in done.stderr
