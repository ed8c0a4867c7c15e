"""The quickstart does what it says, and the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli._run import rexport

pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'rexport[quickstart]'")


@pytest.mark.slow
def test_the_same_result_on_every_run(tmp_path: Path) -> None:
    runs = [rexport("quickstart", "--json", cwd=tmp_path) for _ in range(2)]
    documents = []
    for run in runs:
        assert run.returncode == 0, run.stderr
        documents.append(json.loads(run.stdout))
    first, second = (
        [(row["model"], row["top1"], row["agreement"], row["bytes"]) for row in document["rows"]]
        for document in documents
    )
    assert first == second
    by_model = {row["model"]: row for row in documents[0]["rows"]}
    assert by_model["fp32"]["top1"] >= 0.97
    assert by_model["int8"]["top1"] >= by_model["fp32"]["top1"] - 0.005
    assert by_model["fp32"]["top1"] == by_model["torch"]["top1"]
    for row in by_model.values():
        assert (tmp_path / row["file"]).stat().st_size == row["bytes"]
        assert row["images_per_second_batch32"] > 0


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = rexport("quickstart", "--dir", tmp_path / "file", cwd=tmp_path)
    assert done.returncode == 1
    assert "--dir" in done.stderr
    assert "Traceback" not in done.stderr
