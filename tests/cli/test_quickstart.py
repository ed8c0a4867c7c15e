"""The quickstart does what it says, and the same every time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli._run import rexport

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Quickstart


@pytest.mark.slow
def test_accuracy_and_files(quickstart: Quickstart) -> None:
    rows = {row["model"]: row for row in quickstart.document["rows"]}
    assert list(rows) == ["torch", "fp32", "int8"]
    assert rows["fp32"]["top1"] == rows["torch"]["top1"] >= 0.97
    assert abs(rows["int8"]["top1"] - rows["fp32"]["top1"]) <= 0.005
    for row in rows.values():
        assert (quickstart.folder / row["file"]).stat().st_size == row["bytes"]
        assert row["images_per_second_batch32"] > 0
    assert rows["int8"]["bytes"] < rows["fp32"]["bytes"] / 2


@pytest.mark.slow
def test_the_same_result_on_every_run(quickstart: Quickstart) -> None:
    before = {row["file"]: (quickstart.folder / row["file"]).read_bytes() for row in quickstart.document["rows"]}
    again = rexport("quickstart", "--json", cwd=quickstart.folder)
    assert again.returncode == 0, again.stderr
    assert before == {file: (quickstart.folder / file).read_bytes() for file in before}
    accuracies = [
        [(row["top1"], row["agreement"]) for row in document["rows"]]
        for document in (quickstart.document, json.loads(again.stdout))
    ]
    assert accuracies[0] == accuracies[1]


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = rexport("quickstart", "--dir", tmp_path / "file", cwd=tmp_path)
    assert done.returncode == 1
    assert "--dir" in done.stderr
    assert "Traceback" not in done.stderr
